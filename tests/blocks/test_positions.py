"""Position tables of other sizes, against vectors of the published interpolation."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from blocks.errors import SuiteError
from blocks.positions import resize_position_table


def test_resizing_equals_both_published_definitions(golden: Path) -> None:
    path = golden / "vision" / "vim_pos_embed_interp.safetensors"
    with safe_open(path, "pt") as file:
        cases = json.loads(file.metadata()["cases"])
    tensors = load_file(path)
    assert len(cases) == 4
    for i, case in enumerate(cases):
        old, new = (case["old_grid"],) * 2, (case["new_grid"],) * 2
        table = tensors[f"case{i}.inp"]
        middles = old[0] ** 2 // 2, new[0] ** 2 // 2
        aware = resize_position_table(table, old, middles[0], new, middles[1])
        upstream = resize_position_table(table, old, 0, new, 0)
        assert torch.allclose(aware, tensors[f"case{i}.middle_aware"], atol=1e-5)
        assert torch.allclose(upstream, tensors[f"case{i}.upstream"], atol=1e-5)


def test_equal_grids_only_move_the_class_row() -> None:
    table = torch.randn(1, 13, 4)
    moved = resize_position_table(table, (3, 4), 6, (3, 4), 0)
    assert torch.equal(moved[:, 0], table[:, 6])
    assert torch.equal(moved[:, 1:7], table[:, :6])


def test_a_table_without_class_row_stays_one() -> None:
    assert resize_position_table(torch.randn(1, 12, 4), (3, 4), None, (5, 2), None).shape[1] == 10


def test_wrong_rows_are_named() -> None:
    rows = math.prod((3, 4))
    with pytest.raises(SuiteError, match=f"{rows} patch rows and a class-token row"):
        resize_position_table(torch.randn(1, 12, 4), (3, 4), 6, (5, 5), 12)
