"""The checkpoints of a run: the best ones, and a `last.ckpt` that is what its name says.

Lightning's `save_last` copies the last *best* checkpoint, and an epoch without a record leaves
`last.ckpt` behind; so it has a callback of its own here, and one more for long epochs.
"""

from datetime import timedelta
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint


def run_checkpoints(
    folder: Path, monitor: str | None, mode: str, save_top_k: int, minutes: float = 10.0
) -> list[Callback]:
    """Callbacks that write `best-EPOCH-STEP.ckpt` and `last.ckpt`.

    Args:
        folder: Where they go.
        monitor: Metric that decides what is best; `None` without validation: no best is kept.
        mode: `min` or `max`.
        save_top_k: How many best ones stay; 0 none, -1 all.
        minutes: Longest time between two `last.ckpt` within an epoch.

    Returns:
        Best by the metric; last after each epoch and on an exception; last now and then.
    """
    best = ModelCheckpoint(
        folder,
        "best-{epoch:03d}-{step}",
        monitor=monitor,
        mode=mode,
        save_top_k=save_top_k if monitor else 0,
        auto_insert_metric_name=False,
    )
    each_epoch = _LastCheckpoint(
        folder,
        "last",
        save_on_train_epoch_end=True,
        save_on_exception=True,
        enable_version_counter=False,
    )
    now_and_then = ModelCheckpoint(
        folder,
        "last",
        train_time_interval=timedelta(minutes=minutes),
        enable_version_counter=False,
    )
    return [best, each_epoch, now_and_then]


class _LastCheckpoint(ModelCheckpoint):
    """A refused resume keeps the checkpoint: until training starts, nothing is worth saving."""

    _training = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._training = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self._training:
            super().on_exception(trainer, pl_module, exception)
