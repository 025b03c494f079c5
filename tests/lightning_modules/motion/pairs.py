"""Captions and motions that belong together, without a data set: for tests of the evaluators.

Each class of motion holds a constant of its own in the features; its caption is its number.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.info import DataInfo
from datamodules.sampling import EvalSampler
from lightning_modules.workload import Batch, Stage, Workload

D, WORDS, LONGEST = 263, 6, 40
MEAN = tuple((torch.arange(D) / 100).tolist())
STD = tuple((0.5 + torch.arange(D) / 300).tolist())
EVALUATOR_STD = tuple(s / 25 if i < 4 or i >= 259 else s for i, s in enumerate(STD))


def generator(*key: object) -> torch.Generator:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def pair(label: int, number: int, split: str = "val") -> dict[str, Any]:
    """One sample: a class of motion, told apart from others of it by its number."""
    noise = generator(split, label, number)
    length = 16 + 4 * int(torch.randint(7, (1,), generator=noise))
    pattern = torch.randn(D, generator=generator("class", label))
    motion = torch.zeros(LONGEST, D)
    motion[:length] = pattern + 0.3 * torch.randn(length, D, generator=noise)
    words = torch.stack([torch.randn(300, generator=generator(w)) for w in ("a", label)])
    return {
        "motion": motion,
        "padding": torch.arange(LONGEST) >= length,
        "length": length,
        "caption": f"a person does {label}",
        "name": f"{split}{label:03d}_{number}",
        "index": number,
        "words": nn.functional.pad(words, (0, 0, 0, WORDS - 2)),
        "word_classes": nn.functional.one_hot(torch.arange(WORDS), 15).float(),
        "word_count": 2,
    }


@dataclass(frozen=True)
class PairsInfo(DataInfo):
    """What `MotionInfo` says that evaluators read."""

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    evaluator_mean: tuple[float, ...] = MEAN
    evaluator_std: tuple[float, ...] = EVALUATOR_STD
    features: int = D
    max_frames: int = LONGEST
    mode: str = "repaired"
    fps: float = 20.0


class Order(EvalSampler):
    """All samples in their order; `TrainSampler` is not what is tested here."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.indices)


class PairsDataModule(LightningDataModule):
    """`classes` kinds of motion, several training clips and one validation clip of each."""

    def __init__(
        self, classes: int = 40, clips: int = 3, batch_size: int = 32, val_batch_size: int = 8
    ) -> None:
        super().__init__()
        self.classes, self.clips = classes, clips
        self.batch_size, self.val_batch_size = batch_size, val_batch_size

    @property
    def info(self) -> PairsInfo:
        return PairsInfo(self.batch_size, "pairs", "nowhere", True, "0123456789ab")

    def train_dataloader(self) -> DataLoader[Any]:
        samples = [
            pair(label, number, "train")
            for number in range(self.clips)
            for label in torch.randperm(self.classes, generator=generator(number)).tolist()
        ]
        return DataLoader(samples, batch_size=self.batch_size, shuffle=True)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        samples = [pair(label, label) for label in range(self.classes)]
        place = (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )
        sampler = Order(len(samples), rank=place[0], world=place[1])
        return DataLoader(samples, batch_size=self.val_batch_size, sampler=sampler)  # type: ignore[arg-type]

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


class Oracle(Workload):
    """Stands where a text-to-motion module would: returns the truth, with an error it is given.

    Args:
        network: Anything.
        error: Size of the noise on each feature.
        scrambled: Whether everybody gets another's motion.
    """

    monitor, mode = "val/loss", "min"

    def __init__(self, network: nn.Module, error: float = 0.0, scrambled: bool = False) -> None:
        super().__init__(network)
        self.error, self.scrambled = error, scrambled
        self.calls: list[tuple[list[int], int]] = []

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        self.log_loss(batch["motion"].square().mean(), stage, len(batch["motion"]))
        return {}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        keys = batch["index"].tolist()
        motion = self.generate(batch["caption"], batch["length"], keys=keys)
        return {"features": self.denormalised(motion), "length": batch["length"]}

    def denormalised(self, motion: Tensor) -> Tensor:
        return motion * torch.tensor(STD) + torch.tensor(MEAN)

    def generate(
        self, captions: list[str], lengths: Tensor, *, keys: list[int], seed: int = 0
    ) -> Tensor:
        self.calls.append((list(keys), seed))
        found = []
        for caption, key in zip(captions, keys, strict=True):
            label = int(caption.rsplit(maxsplit=1)[1])
            motion = pair((label + 17) % 40 if self.scrambled else label, label)["motion"]
            noise = torch.randn(motion.shape, generator=generator(key, seed))
            found.append(motion + self.error * noise)  # Beyond its length, too.
        return torch.stack(found)[:, : int(lengths.max())]
