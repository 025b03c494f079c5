"""Your own clouds and frames, and the superpoints that are made for them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from blocks.errors import SuiteError
from datamodules.scannet import OwnScansDataModule
from datamodules.scannet.classes import IGNORE
from datamodules.scannet.oversegmentation import oversegment


def planes(count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Points on a floor and two walls, with which of them each is on."""
    rng = np.random.default_rng(0)
    flat, which = rng.uniform(0, 2, (count, 2)), rng.integers(0, 3, count)
    xyz = np.zeros((count, 3))
    for k in range(3):
        xyz[np.ix_(which == k, [a for a in range(3) if a != k])] = flat[which == k]
    return xyz + rng.normal(0, 0.002, xyz.shape), which


def test_planes_are_told_apart() -> None:
    xyz, which = planes()
    labels = oversegment(xyz)
    count = labels.max() + 1
    table = np.bincount(labels * 3 + which, minlength=3 * count).reshape(count, 3)
    assert np.unique(labels).tolist() == list(range(count))
    assert table.max(1).sum() / len(xyz) > 0.95
    assert table.sum(1).min() >= 20, "small regions join their neighbour"
    assert (np.sort(table.max(0))[::-1] > 400).all(), "a plane is not in crumbs"


def test_colours_divide_a_plane() -> None:
    xyz, _ = planes()
    xyz[:, 2] = 0
    rgb = np.where(xyz[:, :1] > 1, 250, 10) * np.ones(3)
    labels, plain = oversegment(xyz, rgb), oversegment(xyz)
    left, right = set(labels[xyz[:, 0] <= 1]), set(labels[xyz[:, 0] > 1])
    assert not left & right
    assert plain.max() + 1 < labels.max() + 1


def test_awkward_clouds() -> None:
    assert oversegment(np.zeros((0, 3))).tolist() == []
    assert oversegment(np.zeros((1, 3))).tolist() == [0]
    assert len(set(oversegment(np.zeros((5, 3))).tolist())) == 1
    xyz, _ = planes(300)
    np.testing.assert_array_equal(oversegment(xyz), oversegment(xyz))


@pytest.fixture
def rgbd(rendered_scans: Path, tmp_path: Path) -> Path:
    for kind in ("color", "depth", "pose", "intrinsic"):
        shutil.copytree(rendered_scans / "scans/scene0001_00" / kind, tmp_path / kind)
    return tmp_path


def test_frames_become_samples(rgbd: Path) -> None:
    data = OwnScansDataModule(str(rgbd), num_points=3000)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [b["frame"][0].split("/")[1] for b in batches] == ["0", "20"]
    for batch in batches:
        assert batch["uv_valid"].all() and len(batch["xyz"]) == 3000
        assert (batch["semantic"] == IGNORE).all() and (batch["instance"] == -1).all()
        assert batch["image"].shape == (1, 3, 224, 304) and batch["superpoint"].max() > 10
        assert batch["xyz"].mean(0).abs().max() < 0.3
    shutil.rmtree(rgbd / "pose")  # A camera held level: z is up, and the view is the same.
    level = next(iter(data.predict_dataloader()))
    assert level["uv_valid"].all()
    (rgbd / "depth" / "0.png").unlink()
    with pytest.raises(SuiteError, match="0.png"):
        next(iter(data.predict_dataloader()))


def test_a_mesh_is_a_sample_without_image(rendered_scans: Path) -> None:
    mesh = next((rendered_scans / "scans").rglob("*.ply"))
    with pytest.raises(SuiteError, match="image"):
        OwnScansDataModule(str(mesh)).setup("predict")
    data = OwnScansDataModule(str(mesh), image=False)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["frame"] == [mesh.stem] and not batch["uv_valid"].any()
    assert batch["superpoint"].max() > 20 and "image" not in batch


def test_it_is_for_prediction_alone(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="predict"):
        OwnScansDataModule(str(tmp_path)).setup("fit")
    with pytest.raises(SuiteError, match="color/N.jpg"):
        OwnScansDataModule(str(tmp_path)).setup("predict")
