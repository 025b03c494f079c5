"""Reads labelled images from files: always three channels, never a silent failure."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from blocks.errors import SuiteError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}

UNKNOWN = -1
"""Label of an image whose class is not known."""


class Item(NamedTuple):
    """An image file and its class index (`UNKNOWN` without one)."""

    path: str
    label: int


class ImageReader:
    """Gives `dict(image=PIL RGB image, label=int, path=str, index=int)` by index.

    Args:
        items: The files, in the order of their indices.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        # Arrays instead of a list: forked workers would copy a million small objects page by page,
        # merely by counting references to them.
        self._paths = np.array([os.fsencode(item.path) for item in items], dtype=np.bytes_)
        self._labels = np.array([item.label for item in items], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = os.fsdecode(self._paths[index])
        return {
            "image": open_rgb(path),
            "label": int(self._labels[index]),
            "path": path,
            "index": index,
        }


def open_rgb(path: str) -> Image.Image:
    """Decodes an image file to RGB, whatever its mode: grey, palette, CMYK, with alpha.

    Raises:
        SuiteError: No such file, not an image, or an image cut short.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file.
        found = str(error) or type(error).__name__
        raise SuiteError(
            expected="an image that Pillow can decode",
            found="no such file" if isinstance(error, FileNotFoundError) else found,
            where=path,
            cure="copy or download the file again, or remove it from the folder (and its label "
            "from the label file)",
        ) from error


def find_images(folder: Path) -> list[str]:
    """Paths of all images below `folder`, sorted; hidden files and folders are passed over."""
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(parent, name) for name in sorted(names) if _is_image(name)]
    return paths


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES
