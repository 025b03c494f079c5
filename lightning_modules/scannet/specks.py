"""Removes specks from masks: parts of a few points far from the rest.

Points touch if their cells do, corners included. For pictures and own data; benchmarks are scored
without.
"""

import numpy as np
import torch
from torch import Tensor

# Side of a cell, metres.
_CELL = 0.04


def without_specks(masks: Tensor, xyz: Tensor, min_points: int) -> Tensor:
    """Masks (M, P) without their connected parts of fewer than `min_points` points.

    Args:
        masks: (M, P) bool.
        xyz: Metres, (P, 3).
        min_points: Smallest part that stays.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    cells = (xyz / _CELL).floor().long()
    cells = cells - cells.amin(0) + 1
    found, cell = torch.unique(cells, dim=0, return_inverse=True)
    edges = _edges(found).cpu().numpy()
    count, owner = len(found), cell.cpu().numpy()
    kept = []
    for mask in masks.cpu().numpy():
        inside = np.zeros(count, bool)
        inside[owner[mask]] = True
        first, second = edges[:, inside[edges].all(0)]
        links = coo_matrix((np.ones(len(first)), (first, second)), (count, count))
        part = connected_components(links, directed=False)[1][owner]
        sizes = np.bincount(part[mask], minlength=count)
        kept.append(mask & (sizes[part] >= min_points))
    return torch.from_numpy(np.array(kept).reshape(masks.shape)).to(masks.device)


def _edges(cells: Tensor) -> Tensor:
    """Pairs (2, E) of touching cells (C, 3), each pair once; cells are sorted and at least 1."""
    sizes = cells.amax(0) + 2
    codes = (cells[:, 0] * sizes[1] + cells[:, 1]) * sizes[2] + cells[:, 2]
    steps = [(x, y, z) for x in (0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    pairs = []
    for x, y, z in steps:
        step = int((x * sizes[1] + y) * sizes[2] + z)
        if step <= 0:
            continue  # The other cell of the pair finds this one.
        place = torch.searchsorted(codes, codes + step).clamp(max=len(codes) - 1)
        first = torch.nonzero(codes[place] == codes + step).squeeze(1)
        pairs.append(torch.stack((first, place[first])))
    return torch.cat(pairs, 1)
