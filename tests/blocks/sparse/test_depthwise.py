"""Depthwise sparse convolution against its definition and differences."""

import pytest
import torch

from blocks.errors import SuiteError
from blocks.macs import count_macs
from blocks.sparse import DepthwiseSparseConv3d
from tests.blocks.sparse.clouds import cloud, naive


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_a_depthwise_convolution_is_its_definition(kernel_size: int) -> None:
    torch.manual_seed(0)
    voxels = cloud(channels=4)
    conv = DepthwiseSparseConv3d(4, kernel_size)
    assert conv.bias is not None
    expected = naive(voxels.features, conv.kernel, voxels.grid, voxels.grid, kernel_size)
    y = conv(voxels.features, voxels.grid)
    torch.testing.assert_close(y, expected + conv.bias, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_finite_differences(bias: bool) -> None:
    torch.manual_seed(0)
    grid = cloud(12, reach=2).grid
    conv = DepthwiseSparseConv3d(2, bias=bias).double()
    x = torch.randn(len(grid), 2, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in conv.named_parameters()]

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, values, strict=True))
        result: torch.Tensor = torch.func.functional_call(conv, named, (x, grid))
        return result

    assert torch.autograd.gradcheck(call, (x, *conv.parameters()))


def test_sixteen_bits_come_back_as_they_went_in() -> None:
    torch.manual_seed(0)
    voxels, conv = cloud(300, reach=2), DepthwiseSparseConv3d(3, 5)
    exact = conv(voxels.features, voxels.grid)
    low = conv(voxels.features.bfloat16(), voxels.grid)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, atol=0.03, rtol=0.03)


def test_operations_are_counted_by_the_pair() -> None:
    voxels, conv = cloud(), DepthwiseSparseConv3d(3)
    pairs = sum(voxels.grid.neighbours(3).counts) + len(voxels.grid)
    assert count_macs(conv, voxels.features, voxels.grid).total == pairs * 3


def test_the_operator_passes_torchs_own_checks() -> None:
    voxels = cloud(20, reach=2)
    m = voxels.grid.neighbours(3)
    x, weight = voxels.features.clone().requires_grad_(), torch.randn(27, 3, requires_grad=True)
    torch.library.opcheck(
        torch.ops.bimamba.depthwise_sparse_conv,
        (x, weight, m.inputs, m.outputs, m.counts, m.centre),
    )


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(SuiteError, match="odd kernel"):
        DepthwiseSparseConv3d(4, 2)
