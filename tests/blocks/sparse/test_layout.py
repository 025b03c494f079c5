"""spconv's kernels and MinkowskiEngine's: converted, they are the same convolution."""

import itertools

import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.sparse import SparseConv3d, Voxels
from blocks.sparse.layout import from_spconv, to_spconv
from tests.blocks.sparse.clouds import cloud


def spconv_by_definition(voxels: Voxels, weight: Tensor) -> Tensor:
    """Submanifold convolution with spconv 2's weight (O, Kx, Ky, Kz, I), voxel by voxel."""
    rows = {tuple(row): i for i, row in enumerate(voxels.coordinates.tolist())}
    side = weight.shape[1]
    out = []
    for sample, x, y, z in voxels.coordinates.tolist():
        total = weight.new_zeros(len(weight))
        for i, j, k in itertools.product(range(side), repeat=3):
            half = side // 2
            row = rows.get((sample, x + i - half, y + j - half, z + k - half))
            if row is not None:
                total = total + weight[:, i, j, k] @ voxels.features[row]
        out.append(total)
    return torch.stack(out)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_a_converted_kernel_is_the_same_convolution_by_spconvs_definition(kernel_size: int) -> None:
    torch.manual_seed(0)
    voxels, conv = cloud(), SparseConv3d(3, 4, kernel_size)
    weight = to_spconv(conv.kernel)
    assert weight.shape == (4, *[kernel_size] * 3, 3)
    expected = spconv_by_definition(voxels, weight)
    torch.testing.assert_close(conv(voxels.features, voxels.grid), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(27, 3, 4), (8, 5, 5), (125, 2, 3), (3, 4)])
def test_there_and_back_changes_nothing(shape: tuple[int, ...]) -> None:
    kernel = torch.randn(shape)
    second = to_spconv(kernel)
    # spconv 1 has the output last.
    first = second.permute(1, 2, 3, 4, 0)
    for weight in (second, first):
        assert torch.equal(from_spconv(weight, kernel.shape), kernel)


def test_another_width_is_no_layout() -> None:
    with pytest.raises(SuiteError, match="weights were trained with"):
        from_spconv(torch.zeros(4, 3, 3, 3, 6), torch.Size((27, 3, 4)))
