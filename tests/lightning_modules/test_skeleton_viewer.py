"""The page that plays poses: its numbers, its safety, and that its program runs."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_modules.skeleton_clip import Array, SkeletonClip
from lightning_modules.skeleton_viewer import viewer_page, write_viewer
from tests.lightning_modules.pose import clips

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def clip(frames: int = 6, truth: bool = True) -> SkeletonClip:
    return clips.clip(frames, truth).shown()


def content(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="clips">(.*?)</script>', page)
    assert found is not None
    clips: list[dict[str, Any]] = json.loads(found[1])
    return clips


def unpacked(text: str, step: float) -> Array:
    return np.frombuffer(base64.b64decode(text), "<i2").reshape(-1, 17, 3).astype(float) * step


def test_the_page_holds_the_poses_within_half_a_step() -> None:
    shown = clip(20)
    (found,) = content(viewer_page([shown], "walk"))
    assert found["step"] < 0.1
    for name, poses in (("poses", shown.joints), ("truth", shown.truth)):
        given = unpacked(found[name], found["step"])
        assert np.abs(given - poses).max() <= 0.5001 * found["step"]
    assert [tuple(bone[:2]) for bone in found["bones"]] == list(shown.skeleton.bones)
    assert [bone[2] for bone in found["bones"][:4]] == ["right", "right", "right", "left"]


def test_a_page_of_a_minute_is_small() -> None:
    size = len(viewer_page([clip(1500, truth=False)], "walk"))
    assert size < 220_000


def test_a_page_needs_no_network_and_no_name_breaks_it() -> None:
    page = viewer_page([clip()], "</title><script>alert(1)</script>")
    assert "http:" not in page
    assert "https:" not in page
    assert page.count("<script") == 2
    assert "default-src 'none'" in page
    assert content(page)[0]["name"] == "S9 <Walking>"
    assert "root-relative, mm" in page


def test_bodies_of_no_size_and_clips_without_truth_are_written(tmp_path: Path) -> None:
    still = clip(2, truth=False)
    still.joints[:] = 0
    write_viewer(tmp_path / "still.html", [still], "still")
    (found,) = content((tmp_path / "still.html").read_text())
    assert found["truth"] is None
    assert not unpacked(found["poses"], found["step"]).any()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser")
def test_the_program_runs_in_a_browser(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    shown = clip(40)
    other = replace(clip(7, truth=False), name="another")
    write_viewer(tmp_path / "page.html", [shown, other], "walk")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    options += ["--virtual-time-budget=600", "--window-size=800,600", "--dump-dom"]
    address = (tmp_path / "page.html").as_uri()
    done = subprocess.run([CHROMIUM, *options, address], capture_output=True, text=True)
    found = re.search(r"frame (\d+) of 40, [\d.]+ s, off by ([\d.]+) mm", done.stdout)
    assert found is not None, done.stderr[-2000:]
    frame = int(found[1])
    assert shown.truth is not None
    expected = np.linalg.norm(shown.joints[frame] - shown.truth[frame], axis=-1).mean()
    assert float(found[2]) == pytest.approx(expected, abs=0.1)
    assert "all, side by side" in done.stdout
