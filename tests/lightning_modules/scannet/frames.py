"""Small RGB-D frames for the tests of the segmenter: boxes on a floor, seen by one camera."""

from typing import Any

import torch
from torch import Tensor, nn

from blocks import Recorded
from blocks.sparse import Voxels
from lightning_modules.scannet import (
    BiFusion,
    CLIPTrunk,
    InstanceSegmentation,
    InstanceSegmenter,
    QueryDecoder,
)

SIZE = (640, 480)
BOXES = 4


class PointwiseBackbone(Recorded, nn.Module):
    """In the place of a U-Net: two layers per voxel, of its features and its place."""

    def __init__(self, out_channels: int = 12) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, out_channels))

    def forward(self, voxels: Voxels) -> Tensor:
        """(V, out_channels)."""
        place = voxels.coordinates[:, 1:].to(voxels.features.dtype) / 50
        out: Tensor = self.net(torch.cat((voxels.features, place), 1))
        return out


def small_batch(
    samples: int = 2, points: int = 240, image: bool = True, seed: int = 0
) -> dict[str, Any]:
    """A batch as the datamodules of ScanNet give it in evaluation.

    Half of the points lie on the floor (class 2), the others on boxes, chairs (1) and tables (3).
    """
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {}
    for sample in range(samples):
        box = torch.randint(0, 2 * BOXES, (points,), generator=generator)
        on_floor = box >= BOXES
        local = torch.rand(points, 3, generator=generator)
        corner = torch.stack((box % 2 * 1.5, box.div(2, rounding_mode="floor") * 1.5), 1)
        on_box = torch.cat((corner + local[:, :2], 0.2 + local[:, 2:]), 1)
        floor = torch.cat((local[:, :2] * 3, torch.zeros(points, 1)), 1)
        xyz = torch.where(on_floor[:, None], floor, on_box) - 1
        cell = (local[:, 0] > 0.5).long() + 2 * torch.where(on_floor, BOXES, box)
        entries = {
            "xyz": xyz,
            "color": torch.randn(points, 3, generator=generator),
            "rgb": torch.randint(0, 256, (points, 3), generator=generator).byte(),
            "sample": torch.full((points,), sample),
            "superpoint": cell.unique(return_inverse=True)[1],
            # Numbers with gaps, and one of the floor, as the files have it.
            "instance": torch.where(on_floor, 7, box * 3),
            "semantic": torch.where(on_floor, 2, 1 + 2 * (box % 2)),
            "uv": torch.rand(points, 2, generator=generator) * torch.tensor([639.0, 479.0]),
            "uv_valid": torch.rand(points, generator=generator) > 0.1,
        }
        entries["superpoint"] += sum(int(s.max()) + 1 for s in parts.get("superpoint", [])[-1:])
        for name, value in entries.items():
            parts.setdefault(name, []).append(value)
    batch: dict[str, Any] = {name: torch.cat(values) for name, values in parts.items()}
    batch["grid_xyz"], batch["original_xyz"] = batch["xyz"].clone(), batch["xyz"].clone()
    batch["pose"] = torch.eye(4).repeat(samples, 1, 1)
    batch["image_size"] = torch.tensor([SIZE]).repeat(samples, 1)
    batch["frame"] = [f"scene{i:04d}_00/0" for i in range(samples)]
    batch["index"] = torch.arange(samples)
    if image:
        batch["image"] = torch.randn(samples, 3, 32, 48, generator=generator)
    return batch


def small_fusion(gate: str = "lite", channels: int = 16, **options: Any) -> BiFusion:
    """A fusion of 12 channels, with a tiny image encoder that trains."""
    torch.manual_seed(0)
    trunk = CLIPTrunk(dim=16, depth=2, num_heads=2, patch_size=16, grid=2, frozen_blocks=0)
    return BiFusion(trunk, 12, channels, gate, **options)  # type: ignore[arg-type]


def small_segmenter(
    fusion: BiFusion | None = None, num_classes: int = 1, **options: Any
) -> InstanceSegmenter:
    """A segmenter of a thousandth of the usual size."""
    width = 12 if fusion is None else 16
    decoder = QueryDecoder(width, num_classes, 200, 16, 2, 2, 32, **options)
    return InstanceSegmenter(PointwiseBackbone(), decoder, fusion, voxel_size=0.1)


def small_task(fusion: bool = True, **options: Any) -> InstanceSegmentation:
    """A class-agnostic task on it."""
    torch.manual_seed(0)
    network = small_segmenter(small_fusion() if fusion else None)
    return InstanceSegmentation(network, agnostic=True, **options)
