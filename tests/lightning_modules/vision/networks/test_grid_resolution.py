"""Stems and downsampling of VMamba: sizes, keys, and patch merging against a naive one."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.vision.networks.grid_resolution import PatchMerging2D, downsample, stem


def naive_merging(module: PatchMerging2D, x: Tensor) -> Tensor:
    rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    padded = torch.zeros(len(x), 2 * rows, 2 * columns, x.shape[3])
    padded[:, : x.shape[1], : x.shape[2]] = x
    out = torch.empty(len(x), rows, columns, 2 * x.shape[3])
    for row in range(rows):
        for column in range(columns):
            four = [
                padded[:, 2 * row + down, 2 * column + right] for right in (0, 1) for down in (0, 1)
            ]
            normed = F.layer_norm(torch.cat(four, -1), (4 * x.shape[3],))
            out[:, row, column] = normed @ module.reduction.weight.T
    return out


@pytest.mark.parametrize("size", [(4, 6), (5, 6), (4, 7), (3, 3), (1, 1)])
def test_patch_merging_equals_a_naive_one_also_at_odd_sides(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module, x = PatchMerging2D(3), torch.randn(2, *size, 3)
    assert torch.allclose(module(x), naive_merging(module, x), atol=1e-5)


@pytest.mark.parametrize("version", ["v1", "v3"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2)])
def test_downsampling_halves_and_rounds_up(version: str, size: tuple[int, int]) -> None:
    out = downsample(version, 4)(torch.randn(2, *size, 4))  # type: ignore[arg-type]
    assert out.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 8)
    assert out.is_contiguous()


def test_keys_are_those_of_upstream() -> None:
    assert {key.split(".")[0] for key in stem("v1", 3, 8).state_dict()} == {"0", "2"}
    assert {key.split(".")[0] for key in stem("v2", 3, 8).state_dict()} == {"0", "2", "5", "7"}
    assert {key.split(".")[0] for key in downsample("v3", 8).state_dict()} == {"1", "3"}
    keys = downsample("v1", 8).state_dict().keys()
    assert keys == {"reduction.weight", "norm.weight", "norm.bias"}


def test_unknown_versions_are_refused() -> None:
    with pytest.raises(SuiteError, match="stem v1 or v2"):
        stem("v3", 3, 8)  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="downsample v1 or v3"):
        downsample("v2", 8)  # type: ignore[arg-type]
