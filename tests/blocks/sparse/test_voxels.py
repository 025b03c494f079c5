"""Voxels hold the mean of their points, each sample for itself."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blocks.errors import SuiteError
from blocks.sparse import voxelize
from tests.blocks.sparse.clouds import cloud, rows_of


def test_voxels_are_those_of_minkowski_engine(golden: Path) -> None:
    g = load_file(golden / "scannet" / "minkunet.safetensors")
    xyz, features = (torch.cat([g[f"in/{b}/{name}"] for b in (0, 1)]) for name in ("xyz", "feats"))
    voxels = voxelize(xyz, features, torch.arange(2).repeat_interleave(600), 0.02)
    rows = rows_of(g["voxel/coords"], voxels.grid)
    torch.testing.assert_close(voxels.features[rows], g["voxel/feats"], atol=1e-6, rtol=0)
    assert voxels.lengths.tolist() == g["voxel/coords"][:, 0].bincount().tolist()


def test_a_voxel_reaches_down_from_zero_too_and_holds_the_mean() -> None:
    xyz = torch.tensor([[-0.001, 0.0, 0.0], [-0.019, 0.01, 0.0], [0.001, 0.0, 0.0]])
    features = torch.tensor([[1.0], [4.0], [7.0]])
    voxels = voxelize(xyz, features, torch.zeros(3, dtype=torch.long), 0.02)
    assert voxels.coordinates.tolist() == [[0, -1, 0, 0], [0, 0, 0, 0]]
    assert voxels.features.flatten().tolist() == [2.5, 7.0]
    assert voxels.to_points(voxels.features).flatten().tolist() == [2.5, 2.5, 7.0]
    assert voxels.stride == 1


def test_the_mean_passes_its_gradient_to_every_point() -> None:
    xyz = torch.tensor([[0.5, 0.5, 0.5], [2.5, 0.5, 0.5], [0.6, 0.5, 0.5]])
    features = torch.zeros(3, 1, requires_grad=True)
    voxels = voxelize(xyz, features, torch.zeros(3, dtype=torch.long), 1.0)
    (grad,) = torch.autograd.grad(
        (voxels.features.flatten() * torch.tensor([6.0, 5.0])).sum(), [features]
    )
    assert grad.flatten().tolist() == [3.0, 5.0, 3.0]


def test_samples_never_share_a_voxel_and_empty_ones_are_counted() -> None:
    xyz, sample = torch.full((4, 3), 0.5), torch.tensor([3, 0, 3, 0])
    voxels = voxelize(xyz, torch.arange(4.0)[:, None], sample, 1.0, samples=5)
    assert voxels.coordinates[:, 0].tolist() == [0, 3]
    assert voxels.features.flatten().tolist() == [2.0, 1.0]
    assert voxels.lengths.tolist() == [1, 0, 0, 1, 0]


def test_the_order_of_points_changes_nothing_but_the_way_back() -> None:
    torch.manual_seed(0)
    xyz, sample = torch.randn(50, 3), torch.randint(2, (50,))
    order = torch.randperm(50)
    one = voxelize(xyz, xyz, sample, 0.5)
    other = voxelize(xyz[order], xyz[order], sample[order], 0.5)
    assert torch.equal(one.coordinates, other.coordinates)
    torch.testing.assert_close(one.features, other.features)
    assert torch.equal(one.point_to_voxel[order], other.point_to_voxel)


def test_voxels_are_sorted_for_their_grid() -> None:
    voxels = cloud()
    assert voxels.grid is voxels.grid
    assert (voxels.coordinates[:, 1:] < 0).any()
    assert voxels.coordinates.tolist() == sorted(voxels.coordinates.tolist())


@pytest.mark.parametrize(
    ("xyz", "message"),
    [
        (torch.full((1, 3), torch.nan), "finite points"),
        (torch.full((1, 3), torch.inf), "finite points"),
        (torch.full((1, 3), 1e6), "unit of the points"),
        (torch.zeros(1, 2), "xyz \\(P, 3\\)"),
        (torch.zeros(2, 3), "xyz \\(P, 3\\)"),
    ],
)
def test_what_cannot_be_put_into_voxels_is_refused(xyz: torch.Tensor, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        voxelize(xyz, torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), 0.02)


def test_no_points_at_all_are_refused() -> None:
    with pytest.raises(SuiteError, match="at least one point"):
        voxelize(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 0.02)
