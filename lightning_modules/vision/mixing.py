"""Mixup and CutMix on the device, the same whatever the number of workers.

timm does the mixing; here it is seeded by (seed, epoch, batch), so a resumed run mixes alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from blocks.errors import SuiteError


@dataclass(frozen=True)
class Mixing:
    """Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), DeiT's values.

    Args:
        mixup: Beta parameter of Mixup; 0 = off.
        cutmix: Beta parameter of CutMix; 0 = off.
        cutmix_minmax: Least and largest side of the pasted box as fractions, instead of `cutmix`.
        prob: Probability that a batch is mixed at all.
        switch_prob: Probability of CutMix where both are on.
        mode: One draw for the `batch`, or one for each `pair` or `elem`.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    cutmix_minmax: tuple[float, float] | None = None
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: Literal["batch", "pair", "elem"] = "batch"

    @property
    def on(self) -> bool:
        """Whether any batch is ever mixed."""
        return self.prob > 0 and (self.mixup > 0 or self.cutmix > 0 or bool(self.cutmix_minmax))


def mix_batch(
    images: Tensor,
    labels: Tensor,
    mixing: Mixing,
    *,
    num_classes: int,
    smoothing: float,
    seed: int,
    epoch: int,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """Mixes images with their reversed batch; smoothing is folded into the targets.

    Args:
        images: (B, C, H, W), B even; changed in place.
        labels: (B,) class numbers.
        mixing: What to draw from.
        num_classes: Width of the targets.
        smoothing: Label smoothing in 0..1.
        seed: Seed of the run.
        epoch: Epoch, part of the seed.
        batch: Batch of the epoch, part of the seed.

    Returns:
        Images and soft targets (B, num_classes).

    Raises:
        SuiteError: The batch is odd, so it cannot be paired.
    """
    from timm.data import Mixup

    if len(images) % 2:
        raise SuiteError(
            expected="an even batch for Mixup and CutMix",
            found=f"{len(images)} images",
            where="data.init_args.batch_size",
            cure="choose an even batch_size, or model.init_args.mixing: {mixup: 0, cutmix: 0}",
        )
    mixup = Mixup(
        mixing.mixup,
        mixing.cutmix,
        mixing.cutmix_minmax,
        mixing.prob,
        mixing.switch_prob,
        mixing.mode,
        label_smoothing=smoothing,
        num_classes=num_classes,
    )
    with _numpy_seed(seed, epoch, batch):
        mixed: tuple[Tensor, Tensor] = mixup(images, labels)
    return mixed


@contextmanager
def _numpy_seed(*key: int) -> Iterator[None]:
    """Seeds numpy's global generator, from which timm draws, and gives its state back."""
    state = np.random.get_state()
    np.random.seed(np.random.SeedSequence(key).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(state)
