"""From a raw clip to what the network sees: normalisation, labels, augmentation.

Sources: TaatiTeam/MotionAGFormer (input, velocity, flip), Walter0807/MotionBERT (noise, masks).
Random numbers come from torch's global generator, which `datamodules.sampling` seeds for each draw.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.cameras import normalise
from blocks.geometry.skeleton import Skeleton
from datamodules.pose.clip_reader import Clip

# MotionBERT's augmenter: key frames of slow noise, and per-frame noise (normalised units).
_KEY_FRAMES, _SLOW_NOISE, _FAST_NOISE = 27, 0.06, 0.002
# Its joint-wise parameters come in a file beside its weights. One number for all joints stands in.
_NORMAL_STD, _NORMAL_SHARE = 0.01, 0.5
# Confidence falls with the error as in the embedded data: a half at this distance.
_HALF_CONFIDENCE, _CONFIDENCE_NOISE = 0.04, 0.04


@dataclass(frozen=True)
class PoseAugment:
    """Augmentation of training clips; everything is drawn per clip.

    Args:
        flip: Probability of a mirrored clip.
        noise: Strength of a detector's noise added to the 2-D joints, whose confidences are then
            made from it; 1 is MotionBERT's range of 6 % of half the image's width, 0 none. It is
            made for ground-truth input.
        joint_mask: Probability that a joint of one frame is hidden (all features 0).
        frame_mask: Probability that a whole frame is hidden.
        confidence_dropout: Probability that a clip's confidences are all 1, as those of a detector
            that gives none.
    """

    flip: float = 0.5
    noise: float = 0.0
    joint_mask: float = 0.0
    frame_mask: float = 0.0
    confidence_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value > 1 and name != "noise"):
                raise SuiteError(
                    expected="a number from 0" + ("" if name == "noise" else " to 1"),
                    found=str(value),
                    where=f"data.init_args.augment.{name}",
                    cure="correct it; 0 switches it off",
                )


NO_AUGMENT = PoseAugment(flip=0.0)


class ClipTransform:
    """Makes a sample of `PoseDataModule` from a raw clip.

    Args:
        skeleton: Root and sides.
        input: Whether x and y are the detector's or those of the pose.
        root_relative: Whether labels are measured from the root of each frame; else only depth is,
            from the root of the first one.
        add_velocity: Adds the joints' steps to the next frame; the last frame goes.
        augment: What is left to chance.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        input: Literal["detected", "gt"],  # noqa: A002  the name of the option
        root_relative: bool,
        add_velocity: bool,
        augment: PoseAugment = NO_AUGMENT,
    ) -> None:
        self.root, self.mirrored = skeleton.root, list(skeleton.mirrored)
        self.input, self.root_relative = input, root_relative
        self.add_velocity, self.augment = add_velocity, augment

    def __call__(self, clip: Clip) -> dict[str, Any]:
        """The sample."""
        size = torch.from_numpy(clip["size"])
        pose = normalise(torch.from_numpy(clip["pose"]), size.float())
        if self.input == "gt":
            xy, confidence = pose[..., :2], torch.ones(pose.shape[:2])
        else:
            xy = normalise(torch.from_numpy(clip["keypoints"]), size.float())
            confidence = torch.from_numpy(clip["confidence"])
        keypoints = torch.cat((xy, confidence.unsqueeze(-1)), -1)
        if self.root_relative:
            pose = pose - pose[:, self.root : self.root + 1]
        else:
            pose = pose - pose.new_tensor([0, 0, 1]) * pose[:1, self.root : self.root + 1]
        keypoints, pose = self._augmented(keypoints, pose)
        sample = {"keypoints": keypoints, "pose": pose, "size": size}
        for key in ("target", "factor", "frame", "scored"):
            if key in clip:
                sample[key] = torch.from_numpy(clip[key])
        if self.add_velocity:
            step = keypoints[..., :2].diff(dim=0)
            sample["keypoints"] = torch.cat((keypoints[:-1], step), -1)
            for key in sample.keys() - {"keypoints", "size"}:
                sample[key] = sample[key][:-1]
        return sample | {key: clip[key] for key in ("group", "index", "source") if key in clip}

    def _augmented(self, keypoints: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        augment = self.augment
        if augment.noise:
            keypoints = detector_noise(keypoints, augment.noise)
        if augment.flip and torch.rand(()) < augment.flip:
            keypoints, pose = (mirror(x, self.mirrored) for x in (keypoints, pose))
        if augment.confidence_dropout and torch.rand(()) < augment.confidence_dropout:
            keypoints = torch.cat((keypoints[..., :2], torch.ones_like(keypoints[..., 2:])), -1)
        if augment.joint_mask:
            keypoints = (
                keypoints * (torch.rand(keypoints.shape[:2]) >= augment.joint_mask)[..., None]
            )
        if augment.frame_mask:
            keypoints = (
                keypoints * (torch.rand(len(keypoints)) >= augment.frame_mask)[:, None, None]
            )
        return keypoints, pose


def mirror(joints: Tensor, mirrored: list[int]) -> Tensor:
    """Joints (T, J, C) of the mirrored person: x changes sign, left and right change places."""
    joints = joints[:, mirrored].clone()
    joints[..., 0] *= -1
    return joints


def detector_noise(keypoints: Tensor, strength: float) -> Tensor:
    """Keypoints (T, J, 3) with slow and fast noise, and confidences that follow from it.

    Args:
        keypoints: Normalised x, y and any confidence.
        strength: Factor on all of the noise.
    """
    frames, joints, _ = keypoints.shape
    shape = (_KEY_FRAMES, joints)
    normal = _NORMAL_STD * torch.randn(*shape, 2)
    uniform = _SLOW_NOISE * (torch.rand(*shape, 2) - 0.5)
    slow = torch.where(torch.rand(*shape, 1) < _NORMAL_SHARE, normal, uniform)
    slow = torch.nn.functional.interpolate(
        slow.permute(1, 2, 0), size=frames, mode="linear", align_corners=True
    ).permute(2, 0, 1)
    noise = strength * (slow + _FAST_NOISE * torch.randn(frames, joints, 2))
    distance = noise.norm(dim=-1, keepdim=True)
    confidence = _HALF_CONFIDENCE / (distance + _HALF_CONFIDENCE)
    confidence = (confidence + _CONFIDENCE_NOISE * torch.randn_like(confidence)).clamp(0, 1)
    return torch.cat((keypoints[..., :2] + noise, confidence), -1)
