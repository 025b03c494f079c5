"""`bimamba bench loading`: everybody reads the same photos, and its files are written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.loading import LOADING_PEERS, _ours, _shards, _timm, write_photos
from bimamba.main import main


def test_a_quick_run_measures_everybody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "loading", "--quick", "--rounds", "1", "--output", str(tmp_path)]
    assert main(words) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "loading_cpu_quick.json").read_text())["results"]
    for mode in ("training", "evaluation"):
        assert set(results[mode]) == {"ours", *LOADING_PEERS}
        assert all(row["images_per_second"] > 0 for row in results[mode].values())
    assert all(name in out for name in LOADING_PEERS)
    assert (tmp_path / "loading_cpu_quick.png").is_file()


def test_photos_are_as_large_as_imagenets(tmp_path: Path) -> None:
    assert 80_000 < write_photos(tmp_path, 2) < 150_000
    image = np.asarray(Image.open(tmp_path / "train" / "0" / "0000.JPEG"))
    assert image.shape == (375, 500, 3)
    assert image.std() > 30


def test_everybody_evaluates_the_same_pixels(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    write_photos(root, 3)
    ours = next(iter(_ours(root, 3, "evaluation")))["image"]
    shards = next(iter(_ours(_shards(root), 3, "evaluation")))["image"]
    theirs, _ = next(iter(_timm(root, 3, "evaluation", prefetcher=False)))
    assert torch.equal(ours, shards)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
