"""Keys, coarser grids and neighbour maps against their definitions."""

import pytest
import torch

from blocks.errors import SuiteError
from blocks.sparse import KernelMap, SparseGrid
from blocks.sparse.grid import LIMIT, packed, unpacked
from tests.blocks.sparse.clouds import cloud, offsets


def pairs_of(found: KernelMap) -> list[set[tuple[int, int]]]:
    parts = (side.split(found.counts) for side in (found.inputs, found.outputs))
    pairs = [set(zip(i.tolist(), o.tolist(), strict=True)) for i, o in zip(*parts, strict=True)]
    assert [len(p) for p in pairs] == list(found.counts)
    if found.centre >= 0:
        assert not pairs[found.centre]
        pairs[found.centre] = {(i, i) for i in range(found.rows)}
    return pairs


def searched(
    source: SparseGrid, target: SparseGrid, kernel_size: int
) -> list[set[tuple[int, int]]]:
    rows = {tuple(row): i for i, row in enumerate(source.coordinates.tolist())}
    found = []
    for x, y, z in offsets(kernel_size, source.stride):
        others = [(s, a + x, b + y, c + z) for s, a, b, c in target.coordinates.tolist()]
        found.append({(rows[other], o) for o, other in enumerate(others) if other in rows})
    return found


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_neighbours_are_where_the_offsets_point(kernel_size: int, level: int) -> None:
    grid = cloud(120, reach=4).grid
    for _ in range(level):
        grid = grid.coarser
    found = grid.neighbours(kernel_size)
    assert pairs_of(found) == searched(grid, grid, kernel_size)
    assert grid.neighbours(kernel_size) is found


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_pooling_reads_from_the_corner_of_a_coarse_voxel(kernel_size: int) -> None:
    for grid in (cloud(120, reach=4).grid, cloud(120, reach=4).grid.coarser):
        found = grid.pooling(kernel_size)
        assert pairs_of(found) == searched(grid, grid.coarser, kernel_size)
        assert found.rows == len(grid.coarser)
        back = found.transposed(len(grid))
        assert pairs_of(back) == [{(o, i) for i, o in part} for part in pairs_of(found)]


def test_a_coarser_grid_rounds_down_below_zero_too() -> None:
    grid = cloud(200, reach=9).grid
    for _ in range(4):
        coarse = grid.coarser
        step = coarse.stride
        floored = grid.coordinates.clone()
        floored[:, 1:] = grid.coordinates[:, 1:].div(step, rounding_mode="floor") * step
        assert step == 2 * grid.stride
        assert coarse.coordinates.tolist() == sorted(
            map(list, {tuple(r) for r in floored.tolist()})
        )
        assert torch.equal(coarse.coordinates[grid.parents], floored)
        assert grid.coarser is coarse
        grid = coarse


def test_keys_sort_like_coordinates_and_can_be_unpacked() -> None:
    rows = torch.tensor([[0, -LIMIT, 0, LIMIT], [0, -1, 7, -1], [0, 0, -5, 3], [9, -LIMIT, 0, 0]])
    keys = packed(rows)
    assert torch.equal(unpacked(keys), rows)
    assert (keys.diff() > 0).all()


def test_one_voxel_has_no_neighbour_and_a_parent() -> None:
    grid = SparseGrid(torch.tensor([[0, -3, 5, 1]]))
    assert sum(grid.neighbours(3).counts) == 0
    assert grid.coarser.coordinates.tolist() == [[0, -4, 4, 0]]


@pytest.mark.parametrize(
    "coordinates",
    [
        [[0, 1, 0, 0], [0, 0, 0, 0]],
        [[0, 1, 0, 0], [0, 1, 0, 0]],
        [[0, 0, 0, LIMIT + 1]],
        [[4096, 0, 0, 0]],
    ],
)
def test_coordinates_that_keys_cannot_hold_are_refused(coordinates: list[list[int]]) -> None:
    with pytest.raises(SuiteError):
        SparseGrid(torch.tensor(coordinates))


def test_coordinates_between_the_strides_are_refused() -> None:
    with pytest.raises(SuiteError, match="multiples of 2"):
        SparseGrid(torch.tensor([[0, 2, 1, 0]]), stride=2)
