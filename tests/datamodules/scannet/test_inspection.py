"""`bimamba data` on frames and scenes: what is wrong is found, and named."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bimamba.main import main
from datamodules.inspection import Convertible, Inspectable, Remark
from datamodules.scannet import (
    PointceptDataModule,
    ScanNet200SVDataModule,
    ScanNetScenesDataModule,
)
from datamodules.scannet.inspection import sample_figures
from tests.conftest import ROOT


def remarks(root: Path, **options: Any) -> list[Remark]:
    data = ScanNet200SVDataModule(str(root), num_workers=0, **options)
    return [found for found in data.validate() if isinstance(found, Remark)]


def fill(root: Path, kind: str, value: Any) -> str:
    """Changes a file of a validation frame; gives the frame's name."""
    name = (root / "meta_data/scannetv2_sv_val.txt").read_text().split()[0]
    path = root / kind / f"{name}.bin"
    array = np.fromfile(path, np.float32 if kind == "points" else np.int64)
    (value(array) if callable(value) else np.full_like(array, value)).tofile(path)
    scene, _, number = name.rpartition("_")
    return f"{scene}/{number}"


def test_all_is_well_with_what_we_render(rendered_frames: Path, rendered_scans: Path) -> None:
    assert {r.level for r in remarks(rendered_frames)} <= {"note"}
    scenes = ScanNetScenesDataModule(str(rendered_scans), num_workers=0)
    assert [r for r in scenes.validate() if isinstance(r, Remark)] == []
    for data in (ScanNet200SVDataModule(), scenes, PointceptDataModule()):
        assert isinstance(data, Inspectable)
    assert isinstance(scenes, Convertible)


@pytest.mark.parametrize(
    ("kind", "value", "level", "words"),
    [
        ("points", lambda a: np.where(np.arange(a.size) == 0, np.nan, a), "error", "finite coord"),
        ("points", lambda a: a * 1000, "error", "inside its image"),
        ("points", lambda a: a * (np.arange(a.size) % 6 < 3), "warning", "colours"),
        ("semantic_mask", 0, "warning", "labels"),
        ("semantic_mask", 3, "note", "instances"),
        ("semantic_mask", 12, "note", "label ids"),
        ("super_points", lambda a: a * 2 + 5, "warning", "without gaps"),
        ("super_points", 0, "error", "several superpoints"),
        ("instance_mask", 7, "warning", "one class"),
    ],
)
def test_each_fault_is_found_and_named(
    frames: Path, kind: str, value: Any, level: str, words: str
) -> None:
    before = remarks(frames)
    frame = fill(frames, kind, value)
    found = [r for r in remarks(frames) if r not in before]
    hits = [r for r in found if words in r.expected and r.level == level]
    assert hits, found
    assert frame in hits[0].where or hits[0].where == "val"


def test_frames_without_image_or_pose_and_of_two_lengths_are_found(frames: Path) -> None:
    images = sorted((frames / "2D").rglob("*.jpg"))
    images[0].unlink()
    path = frames / "scannet200_sv_oneformer3d_infos_val.pkl"
    content = pickle.loads(path.read_bytes())
    content["data_list"][0]["pose"][:] = np.nan
    path.write_bytes(pickle.dumps(content))
    fill(frames, "super_points", lambda a: a[:-4])
    found = remarks(frames)
    text = " ".join(f"{r.expected} {r.found} {r.where}" for r in found)
    assert "colour image" in text and images[0].name in text
    assert "one label for each" in text
    (frames / "points").rename(frames / "elsewhere")
    assert any("points/" in r.expected for r in remarks(frames))


def test_frames_with_faults_that_do_no_harm_are_read_all_the_same(frames: Path) -> None:
    fill(frames, "super_points", lambda a: a * 3 + 1)
    fill(frames, "semantic_mask", 0)
    data = ScanNet200SVDataModule(str(frames), num_workers=0, val_batch_size=2)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    numbers = batch["superpoint"].unique()
    assert numbers.tolist() == list(range(len(numbers)))


def test_figures_are_those_of_a_plain_count() -> None:
    raw = {
        "instance": np.repeat([0, 1, -1], [300, 120, 80]),
        "semantic": np.repeat([3, 5, 2], [300, 120, 80]),
        # The first is covered by two, the second shares one with the floor.
        "superpoint": np.repeat([0, 1, 2], [150, 150, 200]),
        "uv_valid": np.arange(500) < 400,
    }
    found = sample_figures(raw)
    assert (found["points"], found["instances"], found["superpoints"]) == (500, 2, 3)
    assert found["purity"] == pytest.approx(420 / 500) and found["in_view"] == 0.8
    assert (found["wanted"], found["reached"]) == (2, 2)
    assert found["classes"] == {3: 300, 5: 120, 2: 80}


def test_the_command_describes_and_validates(
    frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(ROOT / "configs/scannet/baseline3d.yaml")]
    words += ["--data.init_args.root", str(frames)]
    assert main(["data", "describe", *words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["val samples"] == 2 and facts["val points in their image"] == "100.00%"
    fill(frames, "super_points", 0)
    assert main(["data", "validate", *words]) == 1
    assert "several superpoints" in capsys.readouterr().out
