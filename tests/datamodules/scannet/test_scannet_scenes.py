"""Whole scenes: plain ScanNet, recordings, Pointcept's arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from blocks.errors import SuiteError
from datamodules.scannet import PointceptDataModule, ScanNetScenesDataModule
from datamodules.scannet.classes import CLASSES, IGNORE
from datamodules.scannet.embedded_scans import write_scans
from datamodules.scannet.label_table import FILE_NAME, read_label_table
from datamodules.scannet.oversegmentation import oversegment, surface_normals
from datamodules.scannet.scan_files import read_alignment, read_scan
from datamodules.scannet.sens import SensFile

SCENE = "scans/scene0001_00"


def module(root: Path, kind: Any = ScanNetScenesDataModule, **options: Any) -> Any:
    data = kind(str(root), num_workers=0, batch_size=1, pin_memory=False, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def only(data: Any) -> dict[str, Any]:
    batches = list(data.val_dataloader())
    assert len(batches) == 1
    return batches[0]  # type: ignore[no-any-return]


def test_labels_come_from_segments(scans: Path) -> None:
    """Against a plain reading of the three files."""
    batch = only(module(scans))
    folder = scans / SCENE
    segments = json.loads((folder / "scene0001_00_vh_clean_2.0.010000.segs.json").read_text())
    groups = json.loads((folder / "scene0001_00.aggregation.json").read_text())["segGroups"]
    names = [entry.name for entry in CLASSES]
    owner = {s: g for g in groups for s in g["segments"]}
    for k in range(0, len(batch["xyz"]), 97):
        group = owner.get(segments["segIndices"][k])
        assert batch["instance"][k] == (-1 if group is None else group["objectId"])
        assert batch["semantic"][k] == (IGNORE if group is None else names.index(group["label"]))
    same = torch.tensor(segments["segIndices"])
    pairs = torch.stack((same, batch["superpoint"])).unique(dim=1)
    assert len(pairs[0].unique()) == pairs.shape[1] == len(pairs[1].unique())


def test_scenes_stand_aligned(scans: Path) -> None:
    """The room's walls run along the axes, and its floor is at 0."""
    batch = only(module(scans))
    xyz = batch["xyz"].numpy()
    assert not np.allclose(read_alignment(scans / SCENE), np.eye(4))
    floor = batch["semantic"].numpy() == 2
    assert abs(np.median(xyz[floor, 2])) < 0.02
    # Surfaces of furniture and walls are upright and face along x or y, but for a few.
    xyz = xyz[~floor]
    _, near = cKDTree(xyz).query(xyz[::20], k=24)
    normals = surface_normals(xyz, near)
    upright = normals[np.abs(normals[:, 2]) < 0.1]
    along = np.abs(upright[:, :2]).max(1) > np.cos(np.deg2rad(12))
    assert len(upright) > 100 and along.mean() > 0.7


def test_a_view_is_valid_where_its_depth_agrees(scans: Path) -> None:
    batch = only(module(scans, image=True))
    valid = batch["uv_valid"]
    assert 0.4 < valid.float().mean() < 0.95, "two frames, one of them is seen"
    assert batch["image"].shape == (1, 3, 224, 304) and batch["image_size"].tolist() == [[640, 480]]
    assert not batch["uv"][~valid].any()
    blind = only(module(scans))
    assert not blind["uv_valid"].any() and "image" not in blind


@pytest.mark.parametrize("name", ["aggregation", "segs", "ply", "txt"])
def test_each_file_is_missed_by_name(scans: Path, name: str) -> None:
    (path,) = [p for p in (scans / SCENE).iterdir() if name in p.name and p.is_file()]
    path.unlink()
    if name == "txt":
        np.testing.assert_array_equal(read_alignment(scans / SCENE), np.eye(4))
    elif name == "aggregation":
        assert (only(module(scans))["semantic"] == IGNORE).all(), "a scene of the test split"
    else:
        with pytest.raises(SuiteError, match="scene0001_00"):
            only(module(scans))


def test_both_names_and_keys_of_annotations_are_read(scans: Path) -> None:
    folder = scans / SCENE
    table = read_label_table(scans / FILE_NAME)
    before = read_scan(folder, table)
    old = folder / "scene0001_00.aggregation.json"
    content = json.loads(old.read_text())
    for group in content["segGroups"]:
        group["id"] = group.pop("objectId")
    (folder / "scene0001_00_vh_clean.aggregation.json").write_text(json.dumps(content))
    old.unlink()
    after = read_scan(folder, table)
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])


def test_raw_names_that_share_an_id_share_a_class(scans: Path) -> None:
    table = read_label_table(scans / FILE_NAME)
    assert table.ids["chair"] == table.ids["stack of chairs"] == 2


def test_a_recording_gives_the_frames_that_were_put_in(tmp_path: Path) -> None:
    for sens in (False, True):
        write_scans(tmp_path / str(sens), train=0, val=1, seed=2, views=2, sens=sens)
    frames, recorded = (tmp_path / str(s) / "scans/scene0000_00" for s in (False, True))
    recording = SensFile(recorded / "scene0000_00.sens")
    assert recording.header.num_frames == 2 and recording.header.depth_size == (640, 480)
    assert recording.header.depth_shift == 1000
    written = list(recording.extract(tmp_path / "out"))
    assert len(written) == 4 + 3 * 2
    for k in range(2):
        pixels = [
            np.asarray(__import__("PIL.Image").Image.open(path))
            for path in (frames / "depth" / f"{20 * k}.png", tmp_path / "out/depth" / f"{k}.png")
        ]
        np.testing.assert_array_equal(*pixels)
        color = (frames / "color" / f"{20 * k}.jpg", tmp_path / "out/color" / f"{k}.jpg")
        assert color[0].read_bytes() == color[1].read_bytes()
        poses = (frames / "pose" / f"{20 * k}.txt", tmp_path / "out/pose" / f"{k}.txt")
        np.testing.assert_allclose(np.loadtxt(poses[0]), np.loadtxt(poses[1]), atol=1e-5)
    assert len(list(recording.frames(every=2))) == 1
    cut = tmp_path / "cut.sens"
    cut.write_bytes((recorded / "scene0000_00.sens").read_bytes()[:-100])
    with pytest.raises(SuiteError, match="frame 1"):
        list(SensFile(cut).frames())
    cut.write_bytes(b"\x07\x00\x00\x00" + bytes(20))
    with pytest.raises(SuiteError, match="version 7"):
        SensFile(cut)


def test_pointcept_arrays_hold_the_same_scene(scans: Path, tmp_path: Path) -> None:
    for _ in module(scans).convert(tmp_path / "pointcept"):
        pass
    scene = tmp_path / "pointcept/val/scene0001_00"
    assert {p.stem for p in scene.iterdir()} == {
        "coord", "color", "normal", "segment20", "segment200", "instance", "superpoint",
    }  # fmt: skip
    plain = only(module(scans))
    data = module(tmp_path / "pointcept", PointceptDataModule)
    batch = only(data)
    for key in ("xyz", "semantic", "instance", "superpoint", "rgb", "color"):
        torch.testing.assert_close(batch[key], plain[key])
    twenty = np.load(scene / "segment20.npy")
    assert set(np.unique(twenty[plain["semantic"].numpy() == 2])) == {1}, "floor is second of 20"
    (scene / "superpoint.npy").unlink()
    made = only(data)["superpoint"]
    expected = oversegment(plain["xyz"].numpy(), plain["rgb"].numpy())
    np.testing.assert_array_equal(made.numpy(), expected)
    (scene / "instance.npy").write_bytes((scene / "instance.npy").read_bytes()[:-8])
    with pytest.raises(SuiteError, match="instance.npy"):
        only(data)


def test_missing_scenes_are_counted(scans: Path) -> None:
    with (scans / "scannetv2_val.txt").open("a") as file:
        file.write("scene0707_00\n")
    with pytest.raises(SuiteError, match="scene0707_00"):
        module(scans)
    (scans / "scannetv2_val.txt").unlink()
    with pytest.raises(SuiteError, match="scannetv2_val.txt"):
        module(scans)
