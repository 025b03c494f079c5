"""Gives GPU memory back between steps, for clouds of very different sizes fragment it."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from blocks.errors import SuiteError


class EmptyCache(Callback):
    """Empties the allocator's cache every few steps; costs time, and changes no result.

    Try `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True` first.

    Args:
        every_n_steps: Batches between two calls, at least 1. Upstream empties it after each.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise SuiteError(
                expected="at least 1",
                found=str(every_n_steps),
                where="EmptyCache, every_n_steps",
                cure="correct it, or leave the callback out",
            )
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Empties it when it is due; there is none on a CPU."""
        if (batch_idx + 1) % self.every_n_steps == 0 and torch.cuda.is_available():
            torch.cuda.empty_cache()
