"""What a run says while it works: the scan in use, and a line an epoch where bars do not fit."""

import time

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from blocks.scan import active_backend


class ScanReport(Callback):
    """Names the backend of the selective scan and why it was chosen."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs one line."""
        name, why = active_backend(pl_module.device)
        rank_zero_info(f"selective scan on {pl_module.device}: {name} ({why})")


class EpochLines(Callback):
    """One plain line an epoch, for log files and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the epoch's clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints losses and validation metrics of the epoch."""
        values = {
            name: value
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("train/", "val/")) and not name.endswith("_step")
        }
        cells = [f"{name} {float(value):.4g}" for name, value in values.items()]
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        seconds = time.monotonic() - self._started
        rank_zero_info(
            f"epoch {trainer.current_epoch + 1}/{total}  {'  '.join(cells)}  {seconds:.1f} s"
        )
