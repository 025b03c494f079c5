"""Sets of points in space: thinning, neighbours, interpolation; plain torch, batch by batch.

Axes: B sets, N and M points, K neighbours, C features.
"""

import torch
from torch import Tensor


@torch.no_grad()
def farthest_points(xyz: Tensor, count: int) -> Tensor:
    """Indices (B, count) of points that lie far apart.

    The first point of each set, then always the one farthest from all chosen before (Eldar et al.,
    1997).

    Args:
        xyz: (B, N, 3).
        count: Points to choose, 1 to N.
    """
    batch, number, _ = xyz.shape
    chosen = torch.zeros(batch, count, dtype=torch.long, device=xyz.device)
    nearest = xyz.new_full((batch, number), torch.inf)
    rows = torch.arange(batch, device=xyz.device)
    for i in range(1, count):
        latest = xyz[rows, chosen[:, i - 1]].unsqueeze(1)
        nearest = torch.minimum(nearest, (xyz - latest).square().sum(-1))
        chosen[:, i] = nearest.argmax(-1)
    return chosen


@torch.no_grad()
def nearest_points(xyz: Tensor, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest points of each centre, nearest first.

    Args:
        xyz: (B, N, 3).
        centres: (B, M, 3).
        count: Neighbours K; a centre that is a point is its own first one.

    Returns:
        Distances and indices, (B, M, K).
    """
    # Differences, not products: a point must be exactly at distance 0 of itself.
    exact = "donot_use_mm_for_euclid_dist"
    found = torch.cdist(centres, xyz, compute_mode=exact).topk(count, largest=False)
    return found.values, found.indices


def gathered(x: Tensor, indices: Tensor) -> Tensor:
    """Rows of (B, N, C) at indices (B, ...), as (B, ..., C)."""
    rows = indices.flatten(1).unsqueeze(-1).expand(-1, -1, x.shape[-1])
    return x.gather(1, rows).view(*indices.shape, x.shape[-1])


def interpolated(x: Tensor, xyz: Tensor, centres: Tensor, count: int = 3) -> Tensor:
    """Features at other places: the mean over the nearest points, weighted by 1 / distance.

    Args:
        x: Features of the points, (B, N, C).
        xyz: Where these are, (B, N, 3).
        centres: Where features are wanted, (B, M, 3).
        count: Neighbours.

    Returns:
        (B, M, C).
    """
    distance, indices = nearest_points(xyz, centres, count)
    weight = 1 / (distance + 1e-8)
    weight = weight / weight.sum(-1, keepdim=True)
    return (gathered(x, indices) * weight.unsqueeze(-1)).sum(-2)
