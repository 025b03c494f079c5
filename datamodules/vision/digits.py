"""Embedded images: scikit-learn's scanned digits as PNG files in ImageNet's folder layout."""

from pathlib import Path

from datamodules.embedded import generate_once

_VAL_EVERY = 5


def generate_digits() -> Path:
    """Folder with 1,797 grey 8x8 PNG files in ten classes, written on the first call.

        train/<0..9>/digit_0001.png
        val/<0..9>/digit_0005.png

    The number in a file name is the scan's place in scikit-learn's order (UCI ML hand-written
    digits, test set), from 1. Of each class, every fifth scan is a validation image: 355 of them.

    Returns:
        The data root.
    """
    return generate_once("digits_v1", _write)


def _write(root: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    seen = [0] * 10
    for number, (scan, label) in enumerate(zip(scans, labels, strict=True), start=1):
        seen[label] += 1
        split = "val" if seen[label] % _VAL_EVERY == 0 else "train"
        path = root / split / str(label) / f"digit_{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Scans hold 17 ink levels, 0 to 16.
        pixels = (scan.reshape(8, 8) * (255 / 16)).round().astype("uint8")
        Image.fromarray(pixels).save(path)
