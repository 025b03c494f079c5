"""Space-filling curves against Pointcept's codes and what makes a curve one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from blocks.serialization import ORDERS, Order, serialize

SIZES = ("d4", "d8", "d10", "d16")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", ORDERS)
def test_codes_are_pointcepts(size: str, order: Order, golden: Path) -> None:
    depth = json.loads((golden / "scannet" / "serialization.json").read_text())[size]["depth"]
    with np.load(golden / "scannet" / "serialization.npz") as file:
        arrays = {k.removeprefix(f"{size}/"): torch.from_numpy(file[k]) for k in file.files
                  if k.startswith(f"{size}/")}  # fmt: skip
    code = serialize(arrays["grid_coord"], arrays["batch"], depth, order)
    assert torch.equal(code, arrays[f"{order}/code"])
    along = code.argsort()
    assert torch.equal(along, arrays[f"{order}/order"])
    inverse = torch.empty_like(along)
    inverse[along] = torch.arange(len(along))
    assert torch.equal(inverse, arrays[f"{order}/inverse"])


def cube(depth: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(1 << depth)] * 3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_curve_visits_every_cell_once(order: Order, depth: int) -> None:
    code = serialize(cube(depth), torch.zeros(8**depth, dtype=torch.long), depth, order)
    assert torch.equal(code.sort().values, torch.arange(8**depth))


@pytest.mark.parametrize("order", ["hilbert", "hilbert-trans"])
def test_a_hilbert_curve_never_jumps(order: Order) -> None:
    cells = cube(4)
    code = serialize(cells, torch.zeros(len(cells), dtype=torch.long), 4, order)
    steps = cells[code.argsort()].diff(dim=0).abs().sum(1)
    assert (steps == 1).all()


@pytest.mark.parametrize("order", ORDERS)
def test_without_three_bits_a_code_is_that_of_the_cell_twice_as_large(order: Order) -> None:
    torch.manual_seed(0)
    cells, sample = torch.randint(1 << 9, (500, 3)), torch.randint(3, (500,))
    fine = serialize(cells, sample, 9, order)
    assert torch.equal(fine >> 3, serialize(cells >> 1, sample, 8, order))


def test_samples_follow_one_another() -> None:
    cells = torch.tensor([[15, 15, 15], [0, 0, 0]])
    for order in ORDERS:
        code = serialize(cells, torch.tensor([0, 1]), 4, order)
        assert code[0] < code[1]


@pytest.mark.parametrize(
    ("cell", "depth", "order", "message"),
    [
        ([0, 0, 16], 4, "z", "coordinates in 0..15"),
        ([-1, 0, 0], 4, "z", "subtract each sample's smallest"),
        ([0, 0, 0], 17, "z", "depth of 1 to 16"),
        ([0, 0, 0], 4, "peano", "hilbert-trans"),
    ],
)
def test_what_has_no_code_is_refused(
    cell: list[int], depth: int, order: Order, message: str
) -> None:
    with pytest.raises(SuiteError, match=message):
        serialize(torch.tensor([cell]), torch.tensor([0]), depth, order)
