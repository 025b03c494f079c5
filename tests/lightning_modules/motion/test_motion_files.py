"""Files of predict and pictures of an evaluation, from a stand-in for a trained module."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from blocks.geometry.motion_features import extract_features, recover_joints
from blocks.geometry.motion_skeleton import HUMANML3D
from lightning_modules.motion import MotionFiles, MotionPictures
from lightning_modules.motion.motion_files import GeneratedMotion, shown_clips
from lightning_modules.skeleton_viewer import write_viewer
from tests.lightning_modules.motion.bodies import walking
from tests.lightning_modules.motion.pairs import MEAN, STD, Oracle, PairsDataModule, pair
from tests.lightning_modules.motion.test_generation_evaluation import Nothing

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def predicted(folder: Path, **arguments: Any) -> Path:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder,
        enable_checkpointing=False, callbacks=[MotionFiles(**arguments)], limit_predict_batches=1,
    )  # fmt: skip
    module = Oracle(Nothing(), error=0.1)
    module.info = vars(PairsDataModule().info)
    trainer.predict(module, PairsDataModule(val_batch_size=3), return_predictions=False)
    return folder / "motions"


def test_each_motion_has_its_files(tmp_path: Path) -> None:
    folder = predicted(tmp_path, videos=1)
    names = {path.name for path in folder.iterdir()}
    kinds = ("_features.npy", "_joints.npy", ".bvh", ".html")
    own = {f"val{i:03d}_{i}{kind}" for i in range(3) for kind in kinds}
    assert names == own | {"val000_0.gif", "all.html", "captions.json", "physics.csv"}
    features, joints = (np.load(folder / f"val001_1_{kind}.npy") for kind in ("features", "joints"))
    truth = pair(1, 1)
    assert len(features) == truth["length"] and joints.shape == (truth["length"], 22, 3)
    assert features.dtype == joints.dtype == np.float32
    expected = recover_joints(torch.from_numpy(features), HUMANML3D)
    assert np.array_equal(joints, expected.numpy())
    real = (truth["motion"] * torch.tensor(STD) + torch.tensor(MEAN))[: truth["length"]]
    assert np.abs(features - real.numpy()).mean() < 0.2
    assert json.loads((folder / "captions.json").read_text())["val002_2"] == "a person does 2"
    with (folder / "physics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["motion"] for row in rows[:2]] == ["generated", "ground truth"]
    assert len(rows) == 2 + 6 and float(rows[0]["jitter (m/s³)"]) > 0
    page = (folder / "val000_0.html").read_text()
    assert "ground truth" in page and "foot sliding, m/s" in page


def test_what_is_not_wanted_is_not_written(tmp_path: Path) -> None:
    folder = predicted(tmp_path, bvh=False, video="none")
    assert not [path for path in folder.iterdir() if path.suffix in (".bvh", ".gif", ".mp4")]


def test_pictures_show_the_first_motions_beside_the_truth(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path,
        enable_checkpointing=False, callbacks=[MotionPictures(2)],
    )  # fmt: skip
    module = Oracle(Nothing())
    trainer.test(module, PairsDataModule(), verbose=False)
    assert module.calls == [([0, 1], 0)]
    with Image.open(tmp_path / "pictures" / "test_motions.png") as image:
        assert image.width > image.height > 300
    page = (tmp_path / "motions" / "test.html").read_text()
    assert page.count('"name": "generated"') == page.count('"name": "ground truth"') == 2


def walk(frames: int, speed: float) -> torch.Tensor:
    return extract_features(walking(frames, speed=speed), HUMANML3D)


def test_a_long_way_is_followed_and_a_short_one_is_not() -> None:
    for speed, travels in ((2.0, True), (0.1, False)):
        motion = GeneratedMotion(0, "a", "a person walks", walk(61, speed), walk(61, speed))
        joints = recover_joints(motion.features, HUMANML3D)
        clips, reports = shown_clips(motion, joints)
        assert [clip.travels for clip in clips] == [travels, travels]
        assert reports["generated"].foot_sliding == pytest.approx(speed, rel=0.2)
        assert len({clip.scene for clip in clips}) == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser")
def test_the_page_plays_in_a_browser(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    motion = GeneratedMotion(0, "a", "a person walks & waves", walk(41, 1.0), walk(41, 1.0))
    clips, _ = shown_clips(motion, recover_joints(motion.features, HUMANML3D))
    write_viewer(tmp_path / "page.html", clips, "walk")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    options += ["--virtual-time-budget=600", "--window-size=800,600", "--dump-dom"]
    address = (tmp_path / "page.html").as_uri()
    done = subprocess.run([CHROMIUM, *options, address], capture_output=True, text=True)
    assert re.search(r"frame \d+ of 40", done.stdout), done.stderr[-2000:]
    assert "a person walks &amp; waves" in done.stdout
    assert "<th>foot sliding, m/s</th><td>" in done.stdout
