"""Sparse convolution against MinkowskiEngine, its definition, dense convolution and differences."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from blocks.errors import SuiteError
from blocks.macs import count_macs
from blocks.sparse import SparseConv3d, voxelize
from tests.blocks.sparse.clouds import cloud, naive, rows_of

LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("k1", {"kernel_size": 1}),
    ("k3", {"bias": True}),
    ("k5", {"kernel_size": 5}),
    ("k2s2", {"kernel_size": 2, "stride": 2}),
    ("k3s2", {"kernel_size": 3, "stride": 2}),
]


@pytest.mark.parametrize(("name", "arguments"), LAYERS)
def test_layers_compute_what_minkowski_engine_does(
    name: str, arguments: dict[str, Any], golden: Path
) -> None:
    g = load_file(golden / "scannet" / "minkunet.safetensors")
    voxels = _golden_voxels(g)
    conv = SparseConv3d(3, 4, **arguments)
    conv.load_state_dict(
        {k: g[f"op/{name}/{k}"] for k in ("kernel", "bias") if f"op/{name}/{k}" in g}
    )
    out_grid = voxels.grid.coarser if conv.stride == 2 else voxels.grid
    rows = rows_of(g[f"op/{name}/coords"], out_grid)
    y = conv(voxels.features, voxels.grid)
    torch.testing.assert_close(y[rows], g[f"op/{name}/feats"], atol=1e-6, rtol=1e-5)


def test_the_way_back_is_minkowski_engines_too(golden: Path) -> None:
    g = load_file(golden / "scannet" / "minkunet.safetensors")
    grid = _golden_voxels(g).grid
    x = torch.empty(len(grid.coarser), 4)
    x[rows_of(g["op/k2s2/coords"], grid.coarser)] = g["op/k2s2/feats"]
    conv = SparseConv3d(4, 5, 2, stride=2, transposed=True)
    conv.load_state_dict({"kernel": g["op/tr2s2/kernel"]})
    rows = rows_of(g["op/tr2s2/coords"], grid)
    torch.testing.assert_close(conv(x, grid)[rows], g["op/tr2s2/feats"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("kernel_size", "stride"), [(1, 1), (3, 1), (5, 1), (1, 2), (2, 2), (3, 2)]
)
@pytest.mark.parametrize("coarse", [False, True])
def test_a_convolution_is_its_definition(kernel_size: int, stride: int, coarse: bool) -> None:
    torch.manual_seed(0)
    grid = cloud().grid.coarser if coarse else cloud().grid
    x = torch.randn(len(grid), 3)
    conv = SparseConv3d(3, 4, kernel_size, stride)
    target = grid.coarser if stride == 2 else grid
    expected = naive(x, conv.kernel.reshape(-1, 3, 4), grid, target, kernel_size)
    torch.testing.assert_close(conv(x, grid), expected, atol=1e-5, rtol=1e-4)


def test_a_transposed_convolution_has_the_transposed_matrix() -> None:
    """Rows of the matrix of one are columns of the other, with the weights transposed."""
    torch.manual_seed(0)
    grid = cloud().grid
    down = SparseConv3d(3, 4, 2, stride=2).double()
    up = SparseConv3d(4, 3, 2, stride=2, transposed=True).double()
    with torch.no_grad():
        up.kernel.copy_(down.kernel.mT)
    x = torch.randn(len(grid), 3).double()
    y = torch.randn(len(grid.coarser), 4).double()
    torch.testing.assert_close((down(x, grid) * y).sum(), (x * up(y, grid)).sum())


def test_a_full_volume_is_convolved_as_if_dense() -> None:
    torch.manual_seed(0)
    side = 4
    xyz = torch.cartesian_prod(*[torch.arange(side)] * 3) + 0.5
    voxels = voxelize(xyz, torch.randn(side**3, 2), torch.zeros(side**3, dtype=torch.long), 1.0)
    conv = SparseConv3d(2, 3)
    dense = voxels.features.T.reshape(1, 2, side, side, side)
    # (K^3, I, O), x fastest, to (O, I, x, y, z).
    weight = conv.kernel.reshape(3, 3, 3, 2, 3).permute(4, 3, 2, 1, 0)
    expected = F.conv3d(dense, weight, padding=1).flatten(2)[0].T
    torch.testing.assert_close(conv(voxels.features, voxels.grid), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kernel_size": 1, "bias": True},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 3, "stride": 2, "bias": True},
        {"kernel_size": 2, "stride": 2, "transposed": True},
    ],
)
def test_gradients_are_those_of_finite_differences(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    grid = cloud(12, reach=2).grid
    conv = SparseConv3d(2, 3, **arguments).double()
    rows = len(grid.coarser) if arguments.get("transposed") else len(grid)
    x = torch.randn(rows, 2, dtype=torch.float64, requires_grad=True)
    parameters = dict(conv.named_parameters())

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(parameters, values, strict=True))
        result: torch.Tensor = torch.func.functional_call(conv, named, (x, grid))
        return result

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))


def test_an_input_without_gradient_costs_none_and_weights_get_theirs() -> None:
    grid = cloud().grid
    conv, x = SparseConv3d(3, 4), torch.randn(len(grid), 3)
    (without,) = torch.autograd.grad(conv(x, grid).square().sum(), [conv.kernel])
    leaf = x.clone().requires_grad_()
    both = torch.autograd.grad(conv(leaf, grid).square().sum(), [conv.kernel, leaf])
    assert torch.equal(without, both[0])


def test_samples_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    xyz, conv = torch.rand(40, 3) * 3, SparseConv3d(3, 4)
    zeros = torch.zeros(40, dtype=torch.long)
    alone = voxelize(xyz, xyz, zeros, 1.0)
    twice = voxelize(
        torch.cat((xyz, xyz)), torch.cat((xyz, -xyz)), torch.cat((zeros, zeros + 1)), 1.0
    )
    y = conv(twice.features, twice.grid)
    torch.testing.assert_close(y[: len(y) // 2], conv(alone.features, alone.grid))
    torch.testing.assert_close(y[len(y) // 2 :], -conv(alone.features, alone.grid))


def test_the_same_call_gives_the_same_bits() -> None:
    voxels, conv = cloud(300), SparseConv3d(3, 8, 5)
    found = [
        torch.autograd.grad(conv(voxels.features, voxels.grid).square().sum(), [conv.kernel])[0]
        for _ in range(2)
    ]
    assert torch.equal(*found)


def test_autocast_multiplies_in_16_bits_and_adds_in_32() -> None:
    torch.manual_seed(0)
    voxels, conv = cloud(400, reach=2), SparseConv3d(3, 4, 5)
    exact = conv(voxels.features, voxels.grid)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(voxels.features, voxels.grid)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, atol=0.03, rtol=0.03)
    (grad,) = torch.autograd.grad(y.float().sum(), [conv.kernel])
    assert grad.dtype == torch.float32 and grad.abs().sum() > 0


def test_weights_start_as_in_minkowski_engine() -> None:
    torch.manual_seed(0)
    for conv, n in (
        (SparseConv3d(16, 32), 16 * 27),
        (SparseConv3d(16, 32, 2, 2), 16 * 8),
        (SparseConv3d(16, 32, 2, 2, transposed=True), 32 * 8),
    ):
        assert conv.kernel.abs().max() <= n**-0.5
        assert conv.kernel.abs().max() > 0.99 * n**-0.5


def test_a_kernel_of_one_voxel_is_a_matrix() -> None:
    assert SparseConv3d(3, 4, 1).kernel.shape == (3, 4)


def test_operations_are_counted_by_the_pair() -> None:
    voxels = cloud()
    for conv, kernel_map in (
        (SparseConv3d(3, 4), voxels.grid.neighbours(3)),
        (SparseConv3d(3, 4, 2, 2), voxels.grid.pooling(2)),
    ):
        own = kernel_map.rows if kernel_map.centre >= 0 else 0
        pairs = sum(kernel_map.counts) + own
        assert count_macs(conv, voxels.features, voxels.grid).total == pairs * 12


def test_the_operator_passes_torchs_own_checks() -> None:
    voxels = cloud(20, reach=2)
    m = voxels.grid.neighbours(3)
    x, weight = voxels.features.clone().requires_grad_(), torch.randn(27, 3, 4, requires_grad=True)
    torch.library.opcheck(
        torch.ops.bimamba.sparse_conv,
        (x, weight, m.inputs, m.outputs, m.counts, m.centre, m.rows),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 2},
        {"kernel_size": 4},
        {"kernel_size": 0},
        {"stride": 3},
        {"transposed": True},
    ],
)
def test_kernels_without_a_meaning_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SuiteError):
        SparseConv3d(3, 4, **arguments)


def test_second_derivatives_are_refused_with_a_cure() -> None:
    voxels, conv = cloud(), SparseConv3d(3, 4)
    y = conv(voxels.features, voxels.grid).square().sum()
    with pytest.raises(SuiteError, match="without a second derivative"):
        (grad,) = torch.autograd.grad(y, [conv.kernel], create_graph=True)
        torch.autograd.grad(grad.sum(), [conv.kernel])


def _golden_voxels(g: dict[str, torch.Tensor]) -> Any:
    xyz, features = (torch.cat([g[f"in/{b}/{name}"] for b in (0, 1)]) for name in ("xyz", "feats"))
    return voxelize(xyz, features, torch.arange(2).repeat_interleave(600), 0.02)
