"""Captioned motions in memory: two of their features tell the caption."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

VERBS = ("walks", "runs", "jumps", "turns")


@dataclass(frozen=True)
class CaptionedInfo:
    """What text-to-motion reads of its data."""

    batch_size: int = 8
    protocol: str = "captions in memory"
    root: str = ""
    synthetic: bool = True
    hash: str = "0"
    features: int = 6
    mode: str = "repaired"
    max_frames: int = 12
    contact: str = "none"
    words: tuple[str, ...] = ("a", "person", *VERBS)
    mean: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    std: tuple[float, ...] = (2.0,) * 6


class Captioned(Dataset[dict[str, Any]]):
    """Motions of 5 to 12 frames; each verb has its own level of the first two features."""

    def __init__(self, size: int, scenes: bool) -> None:
        self.size, self.scenes = size, scenes

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        verb = index % len(VERBS)
        length = 5 + index % 8
        motion = 0.1 * torch.randn(length, 6, generator=generator)
        motion[:, 0] += verb - 1.5
        motion[:, 1] += 1.5 - verb
        sample = {"motion": motion, "caption": f"a person {VERBS[verb]}", "index": index}
        if self.scenes:
            sample["points"] = torch.randn(1024, 3, generator=generator)
            sample["contact"] = torch.rand(1024, 6, generator=generator)
        return sample


def collated(samples: list[dict[str, Any]]) -> dict[str, Any]:
    length = torch.tensor([len(sample["motion"]) for sample in samples])
    motions = [sample["motion"] for sample in samples]
    motion = torch.nn.utils.rnn.pad_sequence(motions, batch_first=True)
    batch: dict[str, Any] = {
        "motion": motion,
        "padding": torch.arange(motion.shape[1]) >= length.unsqueeze(1),
        "length": length,
        "caption": [sample["caption"] for sample in samples],
        "name": [str(sample["index"]) for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples]),
    }
    for key in ("points", "contact"):
        if key in samples[0]:
            batch[key] = torch.stack([sample[key] for sample in samples])
    return batch


class CaptionedDataModule(LightningDataModule):
    """Training and validation on such motions."""

    def __init__(self, size: int = 32, batch_size: int = 8, scenes: bool = False) -> None:
        super().__init__()
        self.size, self.batch_size, self.scenes = size, batch_size, scenes
        self.info = CaptionedInfo(batch_size, contact="floor" if scenes else "none")

    def _loader(self, shuffle: bool) -> DataLoader[Any]:
        data = Captioned(self.size, self.scenes)
        return DataLoader(data, self.batch_size, shuffle=shuffle, collate_fn=collated)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(shuffle=False)

    test_dataloader = predict_dataloader = val_dataloader


def first_batch(size: int = 8, scenes: bool = False) -> dict[str, Tensor | Any]:
    data = Captioned(size, scenes)
    return collated([data[i] for i in range(size)])
