"""Small clouds of voxels, and the convolution by its definition."""

import itertools

import torch
from torch import Tensor

from blocks.sparse import SparseGrid, Voxels, voxelize


def cloud(
    points: int = 60, samples: int = 2, channels: int = 3, seed: int = 0, reach: int = 3
) -> Voxels:
    """Random points around the origin, so that half of the coordinates are negative."""
    g = torch.Generator().manual_seed(seed)
    xyz = (torch.rand(points, 3, generator=g) * 2 - 1) * reach
    sample = torch.randint(samples, (points,), generator=g)
    return voxelize(xyz, torch.randn(points, channels, generator=g), sample, 1.0, samples)


def rows_of(coordinates: Tensor, grid: SparseGrid) -> Tensor:
    """Row of the grid for each of the coordinates, which must be the grid's own."""
    rows = {tuple(row): i for i, row in enumerate(grid.coordinates.tolist())}
    assert len(rows) == len(coordinates)
    return torch.tensor([rows[tuple(row)] for row in coordinates.tolist()])


def offsets(kernel_size: int, stride: int) -> list[tuple[int, int, int]]:
    """Offset of each weight in MinkowskiEngine's order: x fastest."""
    start = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = [(start + i) * stride for i in range(kernel_size)]
    return [(x, y, z) for z, y, x in itertools.product(steps, repeat=3)]


def naive(
    x: Tensor, kernel: Tensor, source: SparseGrid, target: SparseGrid, kernel_size: int
) -> Tensor:
    """y[o] = sum over k of x[o + offset_k] W_k, voxel by voxel; a depthwise kernel is (K^3, C)."""
    rows = {tuple(row): i for i, row in enumerate(source.coordinates.tolist())}
    depthwise = kernel.dim() == 2
    out = []
    for sample, *xyz in target.coordinates.tolist():
        y = x.new_zeros(kernel.shape[-1])
        for k, offset in enumerate(offsets(kernel_size, source.stride)):
            row = rows.get((sample, *(a + b for a, b in zip(xyz, offset, strict=True))))
            if row is not None:
                y = y + (x[row] * kernel[k] if depthwise else x[row] @ kernel[k])
        out.append(y)
    return torch.stack(out)
