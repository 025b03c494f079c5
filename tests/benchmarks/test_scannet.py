"""The frame that backbones are measured on, and the benchmark on sizes that measure nothing."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import scannet
from benchmarks.document import measure, write
from benchmarks.room import room_frame
from benchmarks.settings import Settings
from benchmarks.tables import tables
from benchmarks.targets import targets
from blocks.sparse import voxelize


def test_the_frame_of_record_has_the_promised_voxels() -> None:
    xyz, color = room_frame(scannet.POINTS)
    sample = torch.zeros(len(xyz), dtype=torch.long)
    voxels = voxelize(xyz, color, sample, scannet.VOXEL)
    assert abs(len(voxels.grid) - 15_000) < 100
    # Surfaces: fewer neighbours than a solid's 26, more than scattered points have.
    grid = voxels.grid.coarser
    assert 6 < sum(grid.neighbours(3).counts) / len(grid) < 14


def test_points_lie_on_the_room_or_on_its_furniture() -> None:
    xyz, _ = room_frame(2000)
    assert (xyz.amax(0) < torch.tensor([2.7, 2.5, 2.7])).all()
    assert (xyz.amin(0) > torch.tensor([-2.5, -2.3, -0.1])).all()
    floor, walls = xyz[:, 2].abs() < 0.03, (xyz[:, :2] > torch.tensor([2.35, 2.15])).any(1)
    assert 0.05 < floor.float().mean() < 0.6
    assert 0.05 < walls.float().mean() < 0.6
    assert torch.equal(room_frame(2000)[0], xyz)


def test_a_quick_run_measures_backbones_and_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spconv", None)
    settings = Settings(quick=True, rounds=1, threads=1)
    document, promised = measure("scannet", settings, lambda text: None)
    results = document["results"]
    for mode in ("forward", "forward_backward"):
        assert results["backbones"][mode].keys() == {"res16unet34c", "serialized_mamba_small"}
    assert results["backbones"]["sizes"]["serialized_mamba_small"]["parameters"] < 250_000
    assert list(results["frame"]["levels"]) == ["1", "2", "4", "8", "16"]
    for rows in results["layers"].values():
        assert rows["ours"]["median_seconds"] > 0
        assert "spconv" in rows["spconv"]["skipped"]
    assert [target.holds for target in promised] == [None, None, None]
    backbones, layers, precision = tables("scannet", results)
    assert precision.row_count == 2
    assert backbones.row_count == 2 and layers.row_count == len(results["layers"])
    assert "spconv: " in str(layers.caption)
    assert [t.measured for t in targets("scannet", results, Settings())] == [
        results["backbones"]["forward_backward"]["res16unet34c"]["median_seconds"],
        results["average_precision"]["ratio"],
        results["average_precision"]["seconds"] / 60,
    ]
    paths = write("scannet", settings, document, tmp_path)
    assert [path.name for path in paths] == ["scannet_cpu_quick.json", "scannet_cpu_quick.png"]


def test_peers_can_be_left_out() -> None:
    settings = Settings(quick=True, rounds=1, peers=())
    results = scannet.measure_scannet(settings, lambda text: None)
    assert list(results["backbones"]["forward"]) == ["res16unet34c"]
    assert all(list(rows) == ["ours"] for rows in results["layers"].values())


def test_spconv_computes_what_we_do_where_it_is_installed() -> None:
    pytest.importorskip("spconv.pytorch")
    from benchmarks.spconv_peer import SpconvLayer
    from blocks.sparse import SparseConv3d

    torch.manual_seed(0)
    xyz, color = room_frame(300)
    grid = voxelize(xyz, color, torch.zeros(300, dtype=torch.long), 0.05).grid
    for kernel_size in (3, 5):
        conv = SparseConv3d(8, 8, kernel_size)
        SpconvLayer(conv, grid).check(torch.randn(len(grid), 8, requires_grad=True))
