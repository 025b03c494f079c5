"""Nearest points within a radius by hashing cells, never by a table of all distances.

P points and M queries of several samples lie one after the other; K neighbours.
"""

import torch
from torch import Tensor

# Pairs of query and candidate looked at together; bounds the memory, not the result.
_PAIRS = 2**22


@torch.no_grad()
def nearest_within(
    xyz: Tensor,
    sample: Tensor,
    count: int,
    radius: float,
    queries: Tensor | None = None,
    query_sample: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The nearest points of each query, nearest first, exact within the radius.

    Args:
        xyz: Points in metres, (P, 3).
        sample: Sample of each, (P,); neighbours are of the same sample.
        count: Neighbours K.
        radius: Farthest distance of a neighbour, metres.
        queries: Places, (M, 3); the points themselves if left out, each its own first neighbour.
        query_sample: Their samples, (M,).

    Returns:
        Indices of points (M, K) and distances (M, K); where there are fewer, index 0 and infinity.
    """
    if queries is None or query_sample is None:
        queries, query_sample = xyz, sample
    low = torch.minimum(xyz.amin(0), queries.amin(0))
    cells, wanted = (((x - low) / radius).floor().long() + 1 for x in (xyz, queries))
    # One free cell around everything, so that no neighbour of a cell wraps around.
    sizes = torch.maximum(cells.amax(0), wanted.amax(0)) + 2
    codes = _code(cells, sample, sizes)
    order = codes.argsort()
    sorted_codes = codes[order]
    near = torch.tensor([(0, x, y, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)], device=xyz.device)
    steps = _code(near[:, 1:], near[:, 0], sizes)
    # Cells above each other have consecutive codes: nine ranges hold all 27 cells.
    centres = _code(wanted, query_sample, sizes).unsqueeze(1) + steps
    start = torch.searchsorted(sorted_codes, centres - 1)
    end = torch.searchsorted(sorted_codes, centres + 1, right=True)
    totals = (end - start).sum(1)
    indices = torch.zeros(len(queries), count, dtype=torch.long, device=xyz.device)
    distances = xyz.new_full((len(queries), count), torch.inf)
    for first, last in _chunks(totals):
        found = _nearest(
            xyz, order, queries[first:last], start[first:last], end[first:last], count, radius
        )
        rows, place, index, distance = found
        indices[first + rows, place] = index
        distances[first + rows, place] = distance
    return indices, distances


def _nearest(
    xyz: Tensor,
    order: Tensor,
    queries: Tensor,
    start: Tensor,
    end: Tensor,
    count: int,
    radius: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row, place in the row, index and distance of every neighbour of some queries."""
    lengths = (end - start).flatten()
    ends = lengths.cumsum(0)
    offset = torch.arange(int(lengths.sum()), device=xyz.device)
    offset = offset - (ends - lengths).repeat_interleave(lengths)
    index = order[start.flatten().repeat_interleave(lengths) + offset]
    rows = torch.arange(len(queries), device=xyz.device)
    rows = rows.repeat_interleave((end - start).sum(1))
    distance = (xyz[index] - queries[rows]).norm(dim=1)
    near = distance <= radius
    rows, index, distance = rows[near], index[near], distance[near]
    by_distance = distance.argsort(stable=True)
    by_row = by_distance[rows[by_distance].argsort(stable=True)]
    rows, index, distance = rows[by_row], index[by_row], distance[by_row]
    sizes = torch.bincount(rows, minlength=len(queries))
    begin = sizes.cumsum(0) - sizes
    place = torch.arange(len(rows), device=xyz.device) - begin[rows]
    keep = place < count
    return rows[keep], place[keep], index[keep], distance[keep]


def _chunks(totals: Tensor) -> list[tuple[int, int]]:
    """Ranges of queries with about `_PAIRS` candidates each."""
    group = (totals.cumsum(0) - totals) // _PAIRS
    sizes = torch.unique_consecutive(group, return_counts=True)[1].tolist()
    ranges, first = [], 0
    for size in sizes:
        ranges.append((first, first + size))
        first += size
    return ranges


def _code(cells: Tensor, sample: Tensor, sizes: Tensor) -> Tensor:
    code: Tensor = ((sample * sizes[0] + cells[:, 0]) * sizes[1] + cells[:, 1]) * sizes[2]
    return code + cells[:, 2]
