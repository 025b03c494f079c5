"""Trains movement snippets: the first of the two stages of upstream's evaluator.

    |x' - x| + 0.001 |z| + 0.001 |z_{t+1} - z_t|

x' is the decoded window, z its snippets; means over everything. Recipe of
EricGuo5513/text-to-motion: windows of 24 frames, 128 a step, Adam with 1e-4, 270 epochs.

Batch: motion (B, L, D) float32 normalised with the data's statistics, length (B,).
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from blocks.files import atomic_path
from lightning_modules.motion.motion_judge import EvaluatorInput, evaluator_statistics
from lightning_modules.motion.networks.motion_evaluator import UNIT
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.workload import Batch, Stage, Workload

ADAM = Optimizer(name="adam", lr=1e-4, weight_decay=0.0, lr_scale_batch=None)
CONSTANT = Schedule(shape="constant", warmup_epochs=0)
NAME = "movement.tar"


class MovementAutoencoding(Workload):
    """Learns snippets that windows of motion can be rebuilt from.

    Args:
        network: `MovementAutoencoder`.
        optimizer: Optimiser and learning-rate rule.
        schedule: Of the learning rate.
        window: Frames of a window, a multiple of 4.
        windows_per_clip: Windows drawn from each clip of a batch, with repetition.
        sparsity: Weight of the snippets' size.
        smoothness: Weight of their change.
        pretrained: Weights to start from.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor = "val/loss"
    mode = "min"

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer = ADAM,
        schedule: Schedule = CONSTANT,
        window: int = 24,
        windows_per_clip: int = 4,
        sparsity: float = 0.001,
        smoothness: float = 0.001,
        pretrained: str | None = None,
        compile_network: bool = False,
    ) -> None:
        super().__init__(network, optimizer, schedule, pretrained, "model", compile_network)
        self.window, self.windows_per_clip = window, windows_per_clip
        self.sparsity, self.smoothness = sparsity, smoothness
        self.input: EvaluatorInput | None = None

    def configure_callbacks(self) -> list[Callback]:
        """The file for the second stage, unless the trainer has its own or only tries things."""
        if getattr(self.trainer, "fast_dev_run", False):
            return []
        present = {type(callback) for callback in getattr(self.trainer, "callbacks", ())}
        return [] if MovementFile in present else [MovementFile()]

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Takes the statistics of the data, and with them the evaluator's."""
        if info.get("mean"):
            features = int(getattr(self.network, "in_features"))  # noqa: B009
            own = evaluator_statistics(info, features)
            self.input = EvaluatorInput(info["mean"], info["std"], *own, info["max_frames"])
            self.input.to(self.device)

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        assert self.input is not None
        motion = self.input(batch["motion"], batch["length"])
        windows = self._windows(motion, batch["length"], stage)
        snippets, rebuilt = self.network(windows)
        loss = (rebuilt - windows).abs().mean() + self.sparsity * snippets.abs().mean()
        loss = loss + self.smoothness * snippets.diff(dim=1).abs().mean()
        self.log_loss(loss, stage, len(windows))
        return {"loss": loss}

    def _windows(self, motion: Tensor, length: Tensor, stage: Stage) -> Tensor:
        """(N, window, features): random ones in training, the middle of each clip otherwise."""
        clips = torch.arange(len(motion), device=motion.device)
        room = (length - self.window).clamp(min=0)
        if stage == "train":
            clips = clips.repeat(self.windows_per_clip)
            share = torch.rand(len(clips), device=motion.device)
            start = (share * (room[clips] + 1)).long()
        else:
            start = room // 2 // UNIT * UNIT
        frames = start.unsqueeze(1) + torch.arange(self.window, device=motion.device)
        return motion[clips.unsqueeze(1), frames.clamp(max=motion.shape[1] - 1)]


class MovementFile(Callback):
    """Writes `evaluator/movement.tar` into the run directory, under upstream's names.

    It holds the weights of the last validation; `MotionEvaluatorTraining` takes it as `movement`.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes."""
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        network: Any = pl_module.network
        content: dict[str, Any] = {
            part: {key: value.cpu() for key, value in getattr(network, part).state_dict().items()}
            for part in ("movement_enc", "movement_dec")
        }
        content |= {"ep": trainer.current_epoch, "total_it": trainer.global_step}
        with atomic_path(Path(trainer.default_root_dir) / "evaluator" / NAME) as temporary:
            torch.save(content, temporary)
