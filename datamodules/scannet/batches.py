"""Joins samples of different numbers of points to one batch, without padding."""

from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]

PER_POINT = (
    "xyz", "grid_xyz", "original_xyz", "color", "rgb", "instance", "semantic", "uv", "uv_valid",
)  # fmt: skip


def collate(samples: list[dict[str, Any]]) -> Batch:
    """A batch: points of all samples one after the other, superpoints numbered through.

    Args:
        samples: As `PointTransform` gives them.
    """
    batch: Batch = {}
    for name, first in samples[0].items():
        values = [sample[name] for sample in samples]
        if name in PER_POINT:
            batch[name] = torch.cat(values)
        elif isinstance(first, Tensor) and name != "superpoint":
            batch[name] = torch.stack(values)
        elif isinstance(first, str):
            batch[name] = values
    sizes = torch.tensor([len(sample["xyz"]) for sample in samples])
    batch["sample"] = torch.repeat_interleave(torch.arange(len(samples)), sizes)
    groups = [sample["superpoint"] for sample in samples]
    counts = torch.tensor([0, *(int(group.max()) + 1 for group in groups[:-1])]).cumsum(0)
    batch["superpoint"] = torch.cat([g + n for g, n in zip(groups, counts, strict=True)])
    batch["index"] = torch.tensor([sample["index"] for sample in samples])
    return batch
