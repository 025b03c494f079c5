"""Run by a test: a fit on two processes whose averages must be equal on both."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.ema import EMA
from tests.lightning_modules.test_ema import Ones, regression


class Compare(Callback):
    """Gathers the averages of all processes at the end and writes whether they are one."""

    def __init__(self, ema: EMA, answer: Path) -> None:
        self.ema, self.answer = ema, answer

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares bit for bit."""
        average = self.ema.roles(pl_module)[0]["network.weight"]
        gathered = [torch.zeros_like(average) for _ in range(trainer.world_size)]
        torch.distributed.all_gather(gathered, average)
        if trainer.is_global_zero:
            equal = all(torch.equal(gathered[0], other) for other in gathered)
            self.answer.write_text(f"{len(gathered)} {equal} {self.ema.updates}")


if __name__ == "__main__":
    averaged = EMA(decay=0.9)
    Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[averaged, Compare(averaged, Path(sys.argv[1]))],
    ).fit(regression(), Ones())
