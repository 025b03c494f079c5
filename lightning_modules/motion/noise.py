"""Noise that belongs to a sample: whatever batch it is in, on whatever device, it gets the same.

So two evaluations differ by their weights alone (common random numbers), and a sampled motion does
not depend on its neighbours.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def generator(*key: int) -> torch.Generator:
    """A generator for these numbers, such as (seed, index of the sample)."""
    words = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]))


class SampleNoise:
    """Draws standard normal noise (B, L, D), each sample's from a generator of its own.

    Args:
        keys: What identifies each sample, B numbers of at least 0.
        frames: Frames that get noise, of each sample; 0 behind them.
        shape: L and D.
        seed: Of all of them.
        device: Where the noise goes.
    """

    def __init__(
        self,
        keys: Sequence[int],
        frames: Sequence[int],
        shape: tuple[int, int],
        seed: int,
        device: torch.device,
    ) -> None:
        self.generators = [generator(seed, key) for key in keys]
        self.frames, self.shape, self.device = list(frames), shape, device

    def steps(self, count: int) -> Tensor:
        """A step of the diffusion for each sample, (B,) below `count`."""
        found = [torch.randint(count, (1,), generator=each) for each in self.generators]
        return torch.cat(found).to(self.device)

    def __call__(self) -> Tensor:
        """Draws, (B, L, D)."""
        noise = torch.zeros(len(self.generators), *self.shape)
        for row, frames, each in zip(noise, self.frames, self.generators, strict=True):
            row[:frames] = torch.randn(frames, self.shape[1], generator=each)
        return noise.to(self.device)
