"""When pictures of an evaluation are drawn: now and then while training, always at the end."""

import time
from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class EvaluationPictures(Callback, ABC):
    """Base of callbacks that collect samples of an evaluation and draw them afterwards.

    A subclass defines `_forget`, `_collect` and `_draw`. All processes enter `_draw` together, so
    that it may gather; only the first one writes.

    Args:
        every_seconds: Least time between two drawings while training; the last one always comes.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        super().__init__()
        self.every_seconds = every_seconds
        self._drawn = time.monotonic()

    @abstractmethod
    def _forget(self, module: LightningModule) -> None:
        """Starts a new evaluation."""

    @abstractmethod
    def _collect(self, module: LightningModule, outputs: Any, batch: Any) -> None:
        """Takes what it wants of a batch."""

    @abstractmethod
    def _draw(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Writes the pictures of `val` or `test`."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last epoch."""
        self._forget(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last epoch."""
        self._forget(pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Collects."""
        if not trainer.sanity_checking:
            self._collect(pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Collects."""
        self._collect(pl_module, outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws now and then while training, always in `validate`."""
        due = time.monotonic() - self._drawn > self.every_seconds
        # Clocks of processes differ, and drawing takes all of them.
        due = trainer.strategy.broadcast(due)
        if not trainer.sanity_checking and (due or trainer.state.fn == "validate"):
            self._now(trainer, pl_module, "val")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last validation."""
        self._now(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the test."""
        self._now(trainer, pl_module, "test")

    def _now(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._drawn = time.monotonic()
        self._draw(trainer, module, stage)
