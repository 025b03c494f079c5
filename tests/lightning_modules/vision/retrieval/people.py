"""Retrieval images that are easy to tell apart, as files, and a datamodule that serves them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from blocks import Recorded
from datamodules.info import DataInfo
from datamodules.sampling import EvalSampler

SIZE = (16, 8)
IDENTITIES, CAMERAS = 6, 2


@dataclass(frozen=True)
class PeopleInfo(DataInfo):
    """What the retrieval module reads."""

    num_identities: int | None
    views: tuple[str, ...]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class TinyNetwork(Recorded, nn.Module):
    """Patches of 4 pixels to tokens, averaged."""

    def __init__(self, dim: int = 8, num_classes: int | None = 0) -> None:
        super().__init__()
        self.num_features, self.num_classes = dim, num_classes
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        return self.patch(images).flatten(2).mT.tanh()

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        return tokens.mean(1) if pre_logits else self.head(tokens.mean(1))

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


class Photographs(Dataset[dict[str, Any]]):
    """Images by place, with what is known of them."""

    def __init__(self, rows: list[dict[str, Any]], root: Path) -> None:
        self.rows, self.root = rows, root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> dict[str, Any]:
        index = getattr(place, "index", place)
        row = self.rows[index]
        with Image.open(self.root / row["path"]) as image:
            pixels = torch.from_numpy(np.asarray(image, dtype=np.float32).copy())
        return {**row, "image": pixels.permute(2, 0, 1) / 127.5 - 1, "index": index}


class People(LightningDataModule):
    """Six people, each of a colour, under any light, on two cameras."""

    def __init__(
        self, root: str, protocol: str = "cmc_camera", batch_size: int = 12, val_batch: int = 7
    ) -> None:
        super().__init__()
        self.root, self.protocol = Path(root), protocol
        self.batch_size, self.val_batch = batch_size, val_batch
        self.info = PeopleInfo(
            batch_size=batch_size,
            protocol=protocol,
            root=root,
            synthetic=True,
            hash="0",
            num_identities=IDENTITIES,
            views=("satellite", "drone"),
        )
        self.train, self.test = self._write("train", 4, 0), self._write("test", 3, 1)

    def _write(self, split: str, copies: int, seed: int) -> list[dict[str, Any]]:
        random, rows = np.random.default_rng(seed), []
        for copy in range(copies):
            for camera in range(CAMERAS):
                for identity in range(IDENTITIES):
                    name = f"{split}/{identity}_{camera}_{copy}.png"
                    path = self.root / name
                    if not path.exists():
                        path.parent.mkdir(parents=True, exist_ok=True)
                        color = np.array([identity & 1, identity >> 1 & 1, identity >> 2])
                        noise = random.normal(0, 25, (*SIZE, 3))
                        light = random.uniform(-70, 70) + 30 * camera
                        pixels = 100 + 40 * color + light + noise
                        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
                    role = 0 if copy == 0 and split == "test" else 1
                    facts = {"identity": identity, "camera": camera, "view": camera, "role": role}
                    rows.append({**facts, "path": name})
        return rows

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        data = Photographs(self.train, self.root)
        return DataLoader(data, batch_size=self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        place = (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )
        sampler = EvalSampler(len(self.test), rank=place[0], world=place[1])
        return DataLoader(
            Photographs(self.test, self.root), batch_size=self.val_batch, sampler=sampler
        )

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader
