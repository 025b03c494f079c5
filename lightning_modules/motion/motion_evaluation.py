"""Trains the evaluator that judges generated motion: captions and motion into one space.

By default all of it at once, by cross-entropy over the negative distances of a batch in both
directions, where captions that are equal share the target. As an option upstream's second stage
(EricGuo5513/text-to-motion): snippets from an autoencoder stay as they are, and a margin keeps
other motion away.

Batch: motion (B, L, D) float32 normalised with the data's statistics, length (B,), caption: B
texts, words (B, W, 300) and word_classes (B, W, 15) float32, word_count (B,), index (B,).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.files import load_foreign
from lightning_modules.motion.evaluator_writer import EvaluatorWriter
from lightning_modules.motion.generation_metrics import GenerationScores, matching_scores
from lightning_modules.motion.motion_judge import EvaluatorInput, evaluator_statistics
from lightning_modules.motion.networks.motion_evaluator import (
    MotionEvaluator,
    contrastive_terms,
)
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.workload import Batch, Stage, Workload

# Of the suite: measured to reach in a minute what upstream's stages take hours for.
ADAM = Optimizer(name="adam", lr=5e-4, weight_decay=0.0, lr_scale_batch=None)
CONSTANT = Schedule(shape="constant", warmup_epochs=0)
_MOVEMENT_KEYS = ("movement_enc", "movement_encoder")


class MotionEvaluatorTraining(Workload):
    """Trains a `MotionEvaluator` on pairs of caption and motion.

    Args:
        network: `MotionEvaluator`: of all features, or of the essential ones alone (67 of
            HumanML3D, 64 of KIT-ML, with `drop_contacts: false`).
        optimizer: Optimiser and learning-rate rule.
        schedule: Of the learning rate.
        loss: `cross_entropy` over the batch, or upstream's `margin`.
        margin: Distance beyond which another's motion is far enough.
        movement: File of snippets from `MovementAutoencoding` or upstream
            (`Decomp_SP001_SM001_H512/model/latest.tar`): its encoder is taken and stays as it is.
        pretrained: Weights to start from.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor = "val/r_precision_1"
    mode = "max"

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer = ADAM,
        schedule: Schedule = CONSTANT,
        loss: Literal["cross_entropy", "margin"] = "cross_entropy",
        margin: float = 10.0,
        movement: str | None = None,
        pretrained: str | None = None,
        compile_network: bool = False,
    ) -> None:
        super().__init__(network, optimizer, schedule, pretrained, "model", compile_network)
        self.loss_kind, self.margin, self.movement = loss, margin, movement
        self.input: EvaluatorInput | None = None
        if movement is not None:
            self.evaluator.movement_encoder.requires_grad_(False)
        dim = self.evaluator.dim
        self.pairs = nn.ModuleDict({stage: GenerationScores(dim) for stage in ("val", "test")})

    @property
    def evaluator(self) -> MotionEvaluator:
        """The networks."""
        if not isinstance(self.network, MotionEvaluator):
            raise SuiteError(
                expected="a MotionEvaluator",
                found=type(self.network).__name__,
                where="model.init_args.network",
                cure="set class_path: MotionEvaluator",
            )
        return self.network

    def configure_callbacks(self) -> list[Callback]:
        """The evaluator's file, unless the trainer has its own or only tries things."""
        if getattr(self.trainer, "fast_dev_run", False):
            return []
        present = {type(callback) for callback in getattr(self.trainer, "callbacks", ())}
        return [] if EvaluatorWriter in present else [EvaluatorWriter()]

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Takes the statistics of the data, and with them the evaluator's own."""
        if info.get("mean"):
            own = evaluator_statistics(info, self.evaluator.in_features)
            self.input = EvaluatorInput(info["mean"], info["std"], *own, info["max_frames"])
            self.input.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Snippets that are given are encoded without dropout."""
        if not any(p.requires_grad for p in self.evaluator.movement_encoder.parameters()):
            self.evaluator.movement_encoder.eval()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The checkpoint has the snippets' weights."""
        super().on_load_checkpoint(checkpoint)
        self.movement = None

    def load_pretrained(self) -> None:
        """Loads `pretrained`, then the snippets' encoder, if there is one to load."""
        super().load_pretrained()
        if self.movement is None:
            return
        content = load_foreign(self.movement)
        found = [
            content[key] for key in _MOVEMENT_KEYS if isinstance(content, dict) and key in content
        ]
        try:
            self.evaluator.movement_encoder.load_state_dict(found[0])
        except (IndexError, RuntimeError) as error:
            raise SuiteError(
                expected="an encoder of snippets with this network's sizes",
                found=" ".join(str(error).split())[:200] if found else "none",
                where=f"model.init_args.movement: {self.movement}",
                cure="train one: bimamba fit --config configs/motion/movement_autoencoder.yaml",
            ) from error
        self.movement = None

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        text, motion = self.embed(batch)
        if self.loss_kind == "cross_entropy":
            loss = pairing_loss(text, motion, batch["caption"])
        else:
            # By at least one place: upstream's may be none, and then pushes partners apart.
            shift = int(torch.randint(1, max(len(motion), 2), (1,)))
            together, apart = contrastive_terms(text, motion, motion.roll(shift, 0), self.margin)
            loss = together + apart
        self.log_loss(loss, stage, len(motion))
        if stage in self.pairs:
            self._scores(stage).update(text, motion, batch["caption"], batch["index"])
        return {"loss": loss}

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Captions and motion of a batch to (B, dim) each."""
        if self.input is None:
            raise SuiteError(
                expected="the statistics of the data",
                found="none",
                where=type(self).__name__,
                cure="give a datamodule, or load a checkpoint",
            )
        lengths = batch["length"]
        motion = self.evaluator.embed_motion(self.input(batch["motion"], lengths), lengths)
        words = batch["words"], batch["word_classes"], batch["word_count"]
        return self.evaluator.embed_text(*words), motion

    def on_validation_epoch_end(self) -> None:
        """Logs how well captions find their motion."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Logs how well captions find their motion."""
        self._log_scores("test")

    def _scores(self, stage: str) -> GenerationScores:
        scores = self.pairs[stage]
        assert isinstance(scores, GenerationScores)
        return scores

    def _log_scores(self, stage: str) -> None:
        scores = self._scores(stage)
        values = {f"{stage}/{k}": v for k, v in matching_scores(scores.compute()).items()}
        scores.reset()
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)


def pairing_loss(text: Tensor, motion: Tensor, captions: Sequence[str]) -> Tensor:
    """Cross-entropy over negative distances, from captions to motion and back.

    Args:
        text: (B, C).
        motion: (B, C).
        captions: B texts; equal ones share their targets, for nobody can tell them apart.
    """
    codes = {caption: code for code, caption in enumerate(dict.fromkeys(captions))}
    code = torch.tensor([codes[caption] for caption in captions], device=text.device)
    same = (code.unsqueeze(1) == code).to(text.dtype)
    target = same / same.sum(1, keepdim=True)
    logits = -torch.cdist(text, motion)
    both = [torch.nn.functional.cross_entropy(x, target) for x in (logits, logits.T)]
    return (both[0] + both[1]) / 2
