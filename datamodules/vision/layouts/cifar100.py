"""`cifar100`: the Python version of CIFAR-100; its test images are the validation images."""

from pathlib import Path
from typing import Any

import numpy as np

from blocks.errors import SuiteError
from blocks.files import load_pickle
from datamodules.vision.image_sources import ArraySource
from datamodules.vision.layouts.request import LabelledImages, Request, listing, nothing, wrong

_FOLDER = "cifar-100-python"
_SIDE = 32

CIFAR100_TREE = f"""
  root/{_FOLDER}/train
  root/{_FOLDER}/test
  root/{_FOLDER}/meta"""


def is_cifar100(root: Path) -> bool:
    """Whether the unpacked archive is there, or is the root."""
    return _folder(root) is not None


def read_cifar100(request: Request) -> LabelledImages:
    """Lists the layout `cifar100`, with its hundred fine labels."""
    folder = _folder(request.root)
    missing = [
        name for name in ("train", "test", "meta") if folder and not (folder / name).is_file()
    ]
    if folder is None or missing:
        found = f"no {', '.join(missing) or _FOLDER}: {listing(folder or request.root)}"
        raise wrong("cifar100", CIFAR100_TREE, found, request.root)
    names = tuple(str(name) for name in _entry(folder / "meta", "fine_label_names"))
    train = _source(folder / "train") if request.train else nothing()
    return LabelledImages(names, train, _source(folder / "test"))


def _source(path: Path) -> ArraySource:
    table = load_pickle(path)
    pixels = np.asarray(_entry(path, "data", table), dtype=np.uint8)
    labels = np.asarray(_entry(path, "fine_labels", table), dtype=np.int64)
    if pixels.shape != (len(labels), 3 * _SIDE * _SIDE):
        raise SuiteError(
            expected=f"{len(labels)} rows of {3 * _SIDE * _SIDE} bytes, as many as labels",
            found=f"shape {pixels.shape}",
            where=str(path),
            cure="unpack cifar-100-python.tar.gz again",
        )
    # A row holds the red plane, then the green and the blue one.
    images = np.ascontiguousarray(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
    return ArraySource(images, labels, [str(n) for n in _entry(path, "filenames", table)], path)


def _entry(path: Path, name: str, table: Any = None) -> Any:
    table = load_pickle(path) if table is None else table
    if not isinstance(table, dict) or name not in table:
        raise SuiteError(
            expected=f"a pickled dict with the entry {name}",
            found=f"{sorted(table)}" if isinstance(table, dict) else type(table).__name__,
            where=str(path),
            cure="unpack cifar-100-python.tar.gz again; the binary and MATLAB versions are others",
        )
    return table[name]


def _folder(root: Path) -> Path | None:
    places = (root / _FOLDER, root)
    return next((p for p in places if (p / "meta").is_file() and (p / "train").is_file()), None)
