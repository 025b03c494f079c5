"""Lifting 2-D keypoints to 3-D poses, clip by clip.

Batch, all clips of T frames and 17 joints: keypoints (B, T, 17, F) float32, normalised x, y,
confidence; pose (B, T, 17, 3) float32, normalised. In evaluation also target (B, T, 17, 3) float64
in millimetres, factor (B, T) millimetres per pixel, size (B, 2) width and height of the image,
frame (B, T) numbers in the split, group (B,) action or sequence, scored (B, T) bool.

Recipe and defaults: TaatiTeam/MotionAGFormer.
"""

from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M, MPI_INF_3DHP, Skeleton
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.pose.evaluation import UNITS, PoseErrors, PoseScores
from lightning_modules.pose.flipping import flipped
from lightning_modules.pose.losses import PoseLoss
from lightning_modules.pose.pose_files import PoseFiles
from lightning_modules.pose.pose_pictures import PosePictures
from lightning_modules.pose.score_tables import PoseScoreTables
from lightning_modules.workload import Batch, Stage, Workload

_SKELETONS = {"h36m": H36M, "mpi_inf_3dhp": MPI_INF_3DHP}
RECIPE = Optimizer(lr=5e-4, weight_decay=0.01, decay_everything=True, lr_scale_batch=None)
DECAY = Schedule(shape="exponential", gamma=0.99, interval="epoch", warmup_epochs=0)


class PoseLifting(Workload):
    """Trains and evaluates a network from keypoints to root-relative poses.

    Args:
        network: Maps (B, T, 17, F) to (B, T, 17, 3), e.g. `MotionAGFormer`.
        optimizer: Optimiser and learning-rate rule; the published one decays every parameter.
        schedule: Decay of the learning rate; the published one is 0.99 an epoch.
        loss: Terms of the loss and their weights.
        flip_test: Average each prediction with that of the mirror image, in evaluation.
        root_relative: Whether poses have their root at the origin, so that predictions get it too.
        pretrained: Weights to start from: a file of ours, of the upstream project or safetensors.
        pretrained_weights: `model` or its moving average `model_ema`, where the file holds both.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor = "val/p1"
    mode = "min"
    units = UNITS

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer = RECIPE,
        schedule: Schedule = DECAY,
        loss: PoseLoss = PoseLoss(),
        flip_test: bool = True,
        root_relative: bool = True,
        pretrained: str | None = None,
        pretrained_weights: Literal["model", "model_ema"] = "model",
        compile_network: bool = False,
    ) -> None:
        super().__init__(
            network, optimizer, schedule, pretrained, pretrained_weights, compile_network
        )
        self.loss_terms = loss
        self.flip_test, self.root_relative = flip_test, root_relative
        self.errors = nn.ModuleDict()
        self.scores: dict[str, PoseScores] = {}

    @property
    def skeleton(self) -> Skeleton:
        """Joints of the data set."""
        return _SKELETONS[self.info.get("skeleton", "h36m")]

    def forward(self, keypoints: Tensor) -> Tensor:
        """Poses (B, T, 17, 3) of keypoints (B, T, 17, F); flip test outside of training."""
        pose: Tensor = self.network(keypoints)
        if self.flip_test and not self.training:
            mirrored = self.network(flipped(keypoints, self.skeleton))
            pose = (pose + flipped(mirrored, self.skeleton)) / 2
        return pose

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Poses (B, T, 17, 3) in normalised units, root at the origin if `root_relative`."""
        return {"pose": self.rooted(self(batch["keypoints"]))}

    def configure_callbacks(self) -> list[Callback]:
        """Tables, pictures and files, unless the trainer has its own or only tries things."""
        if getattr(self.trainer, "fast_dev_run", False):
            return []
        present = {type(callback) for callback in getattr(self.trainer, "callbacks", ())}
        predicts = self.trainer.state.fn == TrainerFn.PREDICTING
        own = (PoseFiles(),) if predicts else (PoseScoreTables(), PosePictures())
        return [callback for callback in own if type(callback) not in present]

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Makes room for the errors of every frame of the evaluated split."""
        if not info.get("frames"):
            return
        skeleton = _SKELETONS[info["skeleton"]]
        for stage in ("val", "val_raw", "test"):
            self.errors[stage] = PoseErrors(
                info["frames"], len(info["groups"]), skeleton, info["average"], info["pck_joints"]
            )

    def check_data(self) -> None:
        """Clip length and features of the data must be those of the network.

        Raises:
            SuiteError: They differ.
        """
        for name in ("num_frames", "in_features"):
            given, built = self.info.get(name), getattr(self.network, name, None)
            # A network may read fewer features than there are: x and y without confidence.
            fits = built is None or given is None or built == given
            if fits or (name == "in_features" and built == 2 and given == 3):
                continue
            raise SuiteError(
                expected=f"{name} {given}, as the data has",
                found=f"{name} {built} in the network",
                where=f"model.init_args.network.init_args.{name}",
                cure=f"set it to {given}, or data.init_args to clips the network was built for",
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that was trained on another order of joints.

        Raises:
            SuiteError: The skeletons differ.
        """
        trained, given = (i.get("skeleton") for i in (checkpoint.get("info", {}), self.info))
        if trained and given and trained != given:
            raise SuiteError(
                expected=f"joints in the order of {trained}, on which the checkpoint was trained",
                found=f"data in the order of {given}",
                where="bimamba with this checkpoint and this data",
                cure="use a checkpoint trained on the data's joints",
            )
        super().on_load_checkpoint(checkpoint)

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        pose = self(batch["keypoints"])
        terms = self.loss_terms.terms(pose.float(), batch["pose"])
        loss = self.loss_terms.total(terms)
        self.log_loss(loss, stage, len(pose))
        if stage == "train":
            # Not the names of the scores, which are millimetres.
            named = {f"train/loss_{name}": term for name, term in terms.items()}
            self.log_dict(named, on_step=False, on_epoch=True, batch_size=len(pose), sync_dist=True)
            return {"loss": loss}
        prediction = self.millimetres(self.rooted(pose), batch)
        errors = self._errors(stage)
        assert errors is not None
        errors.update(prediction, batch["target"], batch["frame"], batch["group"], batch["scored"])
        return {"loss": loss, "pose": pose}

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the split."""
        self._log_scores("val")
        self._log_scores("val_raw")

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the split."""
        self._log_scores("test")

    def millimetres(self, pose: Tensor, batch: Batch) -> Tensor:
        """Normalised poses (B, T, J, 3) in millimetres, float64, root where it was predicted.

        First pixels, rounded to float32 as upstream stores them (its figures are reproduced to
        1e-6 mm), then times the factor of each frame.
        """
        width, height = batch["size"].double().unbind(1)
        half = (width / 2).view(-1, 1, 1, 1)
        centre = torch.stack((torch.ones_like(width), height / width, torch.zeros_like(width)), 1)
        pixels = ((pose.double() + centre[:, None, None]) * half).float()
        out: Tensor = pixels.double() * batch["factor"].double()[..., None, None]
        return out

    def _errors(self, stage: Stage) -> PoseErrors | None:
        found = dict(self.errors.named_children()).get(stage)
        return found if isinstance(found, PoseErrors) else None

    def rooted(self, pose: Tensor) -> Tensor:
        """Poses (B, T, 17, 3) with their root at the origin, if `root_relative`."""
        if not self.root_relative:
            return pose
        pose = pose.clone()
        pose[:, :, self.skeleton.root] = 0
        return pose

    def _log_scores(self, stage: Stage) -> None:
        errors = self._errors(stage)
        if errors is None or not errors.update_called:
            return
        self.scores[stage] = scores = errors.compute()
        errors.reset()
        named = {f"{stage}/{name}": value for name, value in scores.overall.items()}
        main = f"{stage}/p1"
        self.log(main, named.pop(main), prog_bar=stage == "val")
        self.log_dict(named)
