"""The embedded digits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from datamodules.vision.digits import generate_digits


def test_every_scan_is_there_once_with_its_pixels_and_class() -> None:
    scans, labels = load_digits(return_X_y=True)
    files = {int(path.stem[-4:]): path for path in generate_digits().glob("*/*/digit_*.png")}
    assert sorted(files) == list(range(1, 1798))
    for number in (1, 2, 900, 1797):
        assert files[number].parent.name == str(labels[number - 1])
        ink = np.asarray(Image.open(files[number])) / 255 * 16
        np.testing.assert_allclose(ink, scans[number - 1].reshape(8, 8), atol=0.04)


def test_a_fifth_of_every_class_is_for_validation() -> None:
    root = generate_digits()
    count = {
        split: Counter(path.parent.name for path in root.glob(f"{split}/*/*.png"))
        for split in ("train", "val")
    }
    assert len(count["val"]) == 10
    for digit, val in count["val"].items():
        assert val == (val + count["train"][digit]) // 5


def test_generating_again_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.png")}

    first = contents(generate_digits())
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path))
    assert contents(generate_digits()) == first
