"""Rotary positions against complex numbers."""

import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.vision.networks.rotary_positions import RotaryPositions, rotate


@pytest.mark.parametrize("grid", [(4, 4), (2, 5)])
def test_pairs_turn_by_row_then_by_column(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    rope = RotaryPositions(8, grid, pretrained_side=6)
    x = torch.randn(2, grid[0] * grid[1], 8)
    found = rotate(x, rope.rotation(grid))
    for row in range(grid[0]):
        for column in range(grid[1]):
            place = row * grid[1] + column
            for pair in range(4):
                position = (row / grid[0] if pair < 2 else column / grid[1]) * 6
                angle = position * 10000 ** (-2 * (pair % 2) / 4)
                turn = torch.polar(torch.tensor(1.0), torch.tensor(angle))
                expected = torch.view_as_complex(x[:, place, 2 * pair : 2 * pair + 2]) * turn
                got = torch.view_as_complex(found[:, place, 2 * pair : 2 * pair + 2].contiguous())
                assert torch.allclose(got, expected, atol=1e-6)


def test_other_grids_are_computed_and_kept_on_request() -> None:
    rope = RotaryPositions(8, (2, 2))
    cos, sin = rope.rotation((3, 2))
    assert rope.freqs_cos.shape == (4, 8)
    rope.set_grid((3, 2))
    assert torch.equal(rope.freqs_cos, cos) and torch.equal(rope.freqs_sin, sin)
    assert sorted(rope.state_dict()) == ["freqs_cos", "freqs_sin"]


def test_rotation_keeps_length_and_dtype() -> None:
    x = torch.randn(1, 4, 8, dtype=torch.bfloat16)
    turned = rotate(x, RotaryPositions(8, (2, 2)).rotation((2, 2)))
    assert turned.dtype == torch.bfloat16
    assert torch.allclose(turned.float().norm(dim=-1), x.float().norm(dim=-1), rtol=0.02)


def test_a_width_without_pairs_is_refused() -> None:
    with pytest.raises(SuiteError, match="multiple of 4"):
        RotaryPositions(6, (2, 2))
