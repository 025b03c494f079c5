"""Which sample comes next, and with which random numbers: two samplers and the seed of a draw.

An epoch is one global order of draws, shared by all ranks: rank r of w takes r, r + w, r + 2w, ...
The random numbers of a draw depend on (seed, epoch, position in that order) alone, so the number
of workers, of ranks and of restarts does not change a single augmented pixel.
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info
from torch.utils.data.distributed import DistributedSampler

# A repeated epoch is cut to a multiple of this many draws (facebookresearch/deit, samplers.py).
_REPEATED_EPOCH_MULTIPLE = 256


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample to read. It carries its epoch, so that long-lived workers need no message.

    Args:
        epoch: Epoch it belongs to.
        position: Place in the epoch's global order, counted over all ranks.
        index: Place in the data set.
    """

    epoch: int
    position: int
    index: int


class Reader(Protocol):
    """Reads raw samples by index; knows nothing of order or augmentation."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The raw sample at `index`."""


class SeededDataset(Dataset[dict[str, Any]]):
    """Reader plus transform, every draw under its own seed.

    Args:
        reader: Gives raw samples by index.
        transform: Turns a raw sample into a training sample; may use the global random state of
            `random`, numpy and torch.
        seed: Seed of the run.
    """

    def __init__(
        self, reader: Reader, transform: Callable[[dict[str, Any]], dict[str, Any]], seed: int
    ) -> None:
        self.reader = reader
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        # Lightning's overfit_batches puts its own sampler of plain indices in place of ours.
        if not isinstance(draw, Draw):
            draw = Draw(epoch=0, position=draw, index=draw)
        with seeded(self.seed, draw.epoch, draw.position):
            return self.transform(self.reader[draw.index])


class TrainSampler(DistributedSampler[Draw]):
    """Shuffled training order, equally long on all ranks. Lightning calls `set_epoch`.

    The order is torch's: `randperm` of a generator seeded with seed + epoch. The tail that does not
    divide by the number of ranks is dropped (never padded), so that all ranks take as many steps;
    it is another tail in every epoch.

    Repeated augmentation follows facebookresearch/deit: every index stands `repeats` times in a row
    and the epoch ends after the data set's size rounded down to a multiple of 256 draws; an epoch
    shows about size / repeats distinct samples.

    Args:
        size: Number of samples in the data set.
        seed: Seed of the run.
        rank: This process.
        world: Number of processes.
        repeats: How often a drawn sample is repeated, each copy with its own augmentation.
    """

    def __init__(
        self, size: int, *, seed: int = 0, rank: int = 0, world: int = 1, repeats: int = 1
    ) -> None:
        super().__init__(range(size), num_replicas=world, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.size = size
        self.repeats = repeats
        kept = size
        if repeats > 1:
            # Upstream's rounding leaves nothing of a set below 256 samples: that one stays whole.
            kept = size // _REPEATED_EPOCH_MULTIPLE * _REPEATED_EPOCH_MULTIPLE or size
        self.num_samples = kept // world
        self.total_size = self.num_samples * world
        self._resumed_epoch, self._seen = -1, 0

    def resume(self, epoch: int, seen: int) -> None:
        """Leaves out draws of one epoch that were taken before.

        Args:
            epoch: The epoch; others are whole, and this one as often as it is iterated, for
                Lightning iterates it more than once when it resumes.
            seen: Draws of its global order that all processes together have taken.
        """
        self._resumed_epoch, self._seen = epoch, seen
        self.epoch = epoch  # Workers may ask for draws before Lightning sets the epoch.

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.size, generator=generator).repeat_interleave(self.repeats)
        start = self._seen if self.epoch == self._resumed_epoch else 0
        positions = range(start + self.rank, self.total_size, self.num_replicas)
        indices = order[positions.start : positions.stop : positions.step].tolist()
        for position, index in zip(positions, indices, strict=True):
            yield Draw(self.epoch, position, index)


class EvalSampler(DistributedSampler[Draw]):
    """Every sample exactly once over all ranks, in order, without padding.

    Ranks may differ by one sample. The draws are those of epoch 0 for ever, so two evaluations see
    the same random numbers.

    Args:
        size: Number of samples in the data set.
        rank: This process.
        world: Number of processes.
    """

    def __init__(self, size: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(range(size), num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.indices = range(rank, size, world)
        self.num_samples = len(self.indices)
        self.total_size = size

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(0, index, index) for index in self.indices)


@contextlib.contextmanager
def seeded(seed: int, epoch: int, position: int) -> Iterator[None]:
    """Seeds `random`, numpy and torch (CPU) for one draw and restores their states afterwards.

    In a loader's worker process nothing is restored: nobody draws there between two samples, and it
    would cost a twentieth of the time of one.

    Args:
        seed: Seed of the run, not negative.
        epoch: Epoch of the draw.
        position: Its place in the epoch's global order.
    """
    # SeedSequence mixes the three, so that neighbours in any of them are unrelated.
    words = np.random.SeedSequence([seed, epoch, position]).generate_state(4)
    with contextlib.nullcontext() if get_worker_info() else _restored():
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        # torch.manual_seed would reset the accelerators' generators too, which nobody restores.
        torch.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))
        yield


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Puts the random states of this process back at the end of the block."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)


def global_seed() -> int:
    """Seed of the run: what Lightning's `seed_everything` left in the environment, by default 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
