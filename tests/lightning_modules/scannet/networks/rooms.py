"""Small rooms of voxels for backbones."""

import torch
from torch import Tensor

from blocks.sparse import Voxels, voxelize

Cloud = tuple[Tensor, Tensor]


def room(points: int, seed: int = 0) -> Cloud:
    """Places and colours of points on the floor and two walls of a room 1.2 m wide."""
    g = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=g) * 1.2 - 0.6
    face = torch.randint(3, (points,), generator=g)
    xyz[torch.arange(points), face] = -0.6
    return xyz, torch.randn(points, 3, generator=g)


def voxels_of(*rooms: Cloud) -> Voxels:
    xyz, color = (torch.cat(parts) for parts in zip(*rooms, strict=True))
    sizes = torch.tensor([len(one) for one, _ in rooms])
    return voxelize(xyz, color, torch.arange(len(rooms)).repeat_interleave(sizes), 0.05)


def by_room(x: Tensor, voxels: Voxels) -> list[Tensor]:
    """Rows (V, C) of each sample."""
    return list(x.split(voxels.lengths.tolist()))
