"""Scores of a lifter over a whole split, exact on any number of processes.

Clips may overlap: a frame predicted twice counts with the mean of its errors. On Human3.6M the
result is the unweighted mean over actions of the means over frames; on MPI-INF-3DHP the mean over
frames. Sources: TaatiTeam/MotionAGFormer (train.py), facebookresearch/VideoPose3D, and the official
evaluation of MPI-INF-3DHP.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from blocks.geometry.skeleton import Skeleton
from lightning_modules.pose.errors import aligned, bone_lengths, joint_errors, scaled

# A joint nearer than this is correct, millimetres; the curve has every fifth millimetre below.
PCK_LIMIT, _CURVE_STEP = 150.0, 5.0
# Of a frame; what follows them in the table are the joints.
QUANTITIES = ("p1", "p2", "n_mpjpe", "mpjve", "accel", "bone_length", "bone_std", "pck", "auc")
UNITS = {
    "p1": "mm", "p2": "mm", "n_mpjpe": "mm", "mpjve": "mm/frame", "accel": "mm/frame²",
    "accel_upstream": "mm/frame²", "bone_length": "mm", "bone_std": "mm", "pck": "%", "auc": "%",
}  # fmt: skip


class PoseScores(NamedTuple):
    """What came out.

    Args:
        overall: By name, see `UNITS`; NaN where nothing was scored.
        groups: Per action or sequence, (groups, len(overall)); NaN for one without frames.
        joints: P1 per joint, (J,).
    """

    overall: dict[str, float]
    groups: Tensor
    joints: Tensor


class PoseErrors(Metric):
    """Collects errors per frame of a split.

    Args:
        frames: Frames of the split.
        groups: Number of actions or sequences.
        skeleton: Joints and bones.
        average: Whether the result is the mean over groups or over frames.
        pck_joints: Joints that count for PCK and AUC.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor
    group: Tensor

    def __init__(
        self,
        frames: int,
        groups: int,
        skeleton: Skeleton,
        average: Literal["groups", "frames"] = "groups",
        pck_joints: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.groups, self.skeleton, self.average = groups, skeleton, average
        joints = len(skeleton.names)
        if pck_joints is None:
            pck_joints = [j for j in range(joints) if j != skeleton.root]
        self.pck_joints = list(pck_joints)
        columns = len(QUANTITIES) + joints
        self.add_state("sums", torch.zeros(frames, columns, dtype=torch.float64), "sum")
        # How often a frame was scored; how often it had a next one; and two next ones.
        self.add_state("counts", torch.zeros(frames, 3, dtype=torch.float64), "sum")
        self.add_state("group", torch.full((frames,), -1), "max")

    def update(
        self, prediction: Tensor, target: Tensor, frame: Tensor, group: Tensor, scored: Tensor
    ) -> None:
        """Adds clips.

        Args:
            prediction: (B, T, J, 3), millimetres; the root is subtracted here.
            target: The same.
            frame: Number of each frame in the split, (B, T).
            group: Action or sequence of each clip, (B,).
            scored: Which frames count, (B, T).
        """
        prediction, target = (self._root_relative(x) for x in (prediction, target))
        errors, has = self._errors(prediction, target)
        keep = scored.flatten()
        where = frame.flatten()[keep]
        self.sums.index_add_(0, where, errors.flatten(0, 1)[keep])
        self.counts.index_add_(0, where, has.expand(len(prediction), -1, -1).flatten(0, 1)[keep])
        self.group[where] = group.unsqueeze(1).expand_as(frame).flatten()[keep]

    def compute(self) -> PoseScores:
        """Scores of what was added so far."""
        rows = self._per_frame()
        seen = self.counts[:, 0] > 0
        per_group = torch.stack(
            [rows[seen & (self.group == g)].nanmean(0) for g in range(self.groups)]
        )
        mean = per_group.nanmean(0) if self.average == "groups" else rows[seen].nanmean(0)
        names = list(UNITS)
        overall = dict(zip(names, mean[: len(names)].tolist(), strict=True))
        return PoseScores(overall, per_group[:, : len(names)].cpu(), mean[len(names) :].cpu())

    def _root_relative(self, pose: Tensor) -> Tensor:
        root = self.skeleton.root
        return pose.double() - pose.double()[:, :, root : root + 1]

    def _errors(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of `sums` for (B, T) frames; and which of them a frame has, (T, 3)."""
        shape = prediction.shape[:2]
        p, t = (x.flatten(0, 1) for x in (prediction, target))
        joints = joint_errors(p, t)
        found = dict.fromkeys(QUANTITIES, prediction.new_zeros(shape))
        found["p1"] = joints.mean(1).view(shape)
        found["p2"] = joint_errors(aligned(p, t), t).mean(1).view(shape)
        found["n_mpjpe"] = joint_errors(scaled(p, t), t).mean(1).view(shape)
        difference = prediction - target
        for name, order in (("mpjve", 1), ("accel", 2)):
            change = difference.diff(n=order, dim=1).norm(dim=-1).mean(-1)
            found[name] = torch.nn.functional.pad(change, (0, shape[1] - change.shape[1]))
        lengths_p, lengths_t = (
            bone_lengths(x, self.skeleton.bones).view(*shape, -1) for x in (p, t)
        )
        found["bone_length"] = (lengths_p - lengths_t).abs().mean(-1)
        spread = lengths_p.std(dim=1, correction=0).mean(-1, keepdim=True)
        found["bone_std"] = spread.expand(shape)
        chosen = joints[:, self.pck_joints]
        found["pck"] = 100 * (chosen < PCK_LIMIT).double().mean(1).view(shape)
        limits = torch.arange(0, PCK_LIMIT + 1, _CURVE_STEP, device=p.device, dtype=p.dtype)
        found["auc"] = 100 * (chosen.unsqueeze(-1) < limits).double().mean((1, 2)).view(shape)
        columns = torch.cat((torch.stack(list(found.values()), -1), joints.view(*shape, -1)), -1)
        left = shape[1] - torch.arange(shape[1], device=p.device)
        has = torch.stack([left > after for after in range(3)], -1).double()
        return columns, has

    def _per_frame(self) -> Tensor:
        """Mean errors of every frame in the order of `UNITS`, then of the joints."""
        times, velocity, acceleration = self.counts.unbind(1)
        by_name = dict(zip(QUANTITIES, self.sums.T, strict=False))
        columns = []
        for name in UNITS:
            if name == "accel_upstream":
                # TaatiTeam/MotionAGFormer counts the last two frames of each clip as 0.
                columns.append(by_name["accel"] / times)
                continue
            count = {"mpjve": velocity, "accel": acceleration}.get(name, times)
            columns.append(by_name[name] / count)
        joints = self.sums[:, len(QUANTITIES) :] / times.unsqueeze(1)
        return torch.cat((torch.stack(columns, 1), joints), 1)
