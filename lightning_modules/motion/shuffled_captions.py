"""A control: what a module reaches when captions tell it nothing."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

# Everything in a batch that speaks of its caption.
_OF_CAPTIONS = ("caption", "tokens", "words", "word_classes", "word_count")


class ShuffledCaptions(Callback):
    """Gives every training sample its neighbour's caption; evaluations see the true ones.

    Whatever is learnt then of captions is chance: R-precision must fall to about k in 32. A module
    that scores higher has an evaluator or an evaluation that looks elsewhere.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Moves captions on by one place; batches are in random order anyway."""
        for name in _OF_CAPTIONS:
            if name not in batch:
                continue
            values = batch[name]
            batch[name] = (
                values.roll(1, 0) if isinstance(values, Tensor) else [*values[-1:], *values[:-1]]
            )
