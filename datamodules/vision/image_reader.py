"""Reads labelled images: always three channels, never a silent failure."""

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from blocks.errors import SuiteError
from datamodules.vision.image_sources import ImageSource

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


UNKNOWN = -1
"""Label of an image whose class is not known."""

_CURE = (
    "copy or download the file again, or remove it from the folder (and its label from the label "
    "file)"
)


class Item(NamedTuple):
    """An image file and its class index (`UNKNOWN` without one)."""

    path: str
    label: int


class FileSource:
    """One file for each image.

    Args:
        items: The files, in the order of their indices.
    """

    cure = _CURE

    def __init__(self, items: Sequence[Item]) -> None:
        # Arrays instead of a list: forked workers would copy a million small objects page by page,
        # merely by counting references to them.
        self._paths = np.array([os.fsencode(item.path) for item in items], dtype=np.bytes_)
        self.labels = np.array([item.label for item in items], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Path of the file."""
        return os.fsdecode(self._paths[index])

    def file_name(self, index: int) -> str:
        """Name of the file, without its folder."""
        return os.path.basename(self.name(index))

    def read(self, index: int) -> bytes:
        """Content of the file."""
        with open(self.name(index), "rb", buffering=0) as file:
            return file.read()


class ImageReader:
    """Gives `dict(image=PIL RGB image, label=int, path=str, index=int)` by index.

    Args:
        source: Where the images come from; items are files, in the order of their indices.
        extras: Further entries of each sample: name to an array whose first axis runs over the
            images.
    """

    def __init__(
        self,
        source: ImageSource | Sequence[Item],
        extras: Mapping[str, npt.NDArray[np.int64]] | None = None,
    ) -> None:
        self.source = FileSource(source) if isinstance(source, Sequence) else source
        self.extras = dict(extras or {})

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": read_rgb(self.source, index),
            "label": int(self.source.labels[index]),
            "path": self.source.name(index),
            "index": index,
            **{name: values[index] for name, values in self.extras.items()},
        }


def read_rgb(source: ImageSource, index: int) -> Image.Image:
    """An image of a source as RGB.

    Raises:
        SuiteError: It cannot be read or decoded; the message names it.
    """
    name = source.name(index)
    try:
        data = source.read(index)
    except OSError as error:
        raise _unreadable(error, name, source.cure) from error
    return data if isinstance(data, Image.Image) else decode_rgb(data, name, source.cure)


def open_rgb(path: str) -> Image.Image:
    """Decodes an image file to RGB, whatever its mode: grey, palette, CMYK, with alpha.

    Raises:
        SuiteError: No such file, not an image, or an image cut short.
    """
    return read_rgb(FileSource([Item(path, UNKNOWN)]), 0)


def decode_rgb(data: bytes, where: str, cure: str = FileSource.cure) -> Image.Image:
    """Decodes an image to RGB, whatever its mode: grey, palette, CMYK, with alpha.

    Args:
        data: The encoded image; its content tells the format, not its name.
        where: What to call it in an error.
        cure: What to do about an error.

    Raises:
        SuiteError: Not an image, or an image cut short.
    """
    try:
        with warnings.catch_warnings():
            # Some of ImageNet's photos have a broken EXIF block; their pixels are sound.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                # `convert` copies all pixels even of an image that is RGB.
                return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file.
        raise _unreadable(error, where, cure) from error


def find_images(folder: Path) -> list[str]:
    """Paths of all images below `folder`, sorted; hidden files and folders are passed over."""
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(parent, name) for name in sorted(names) if _is_image(name)]
    return paths


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES


def _unreadable(error: Exception, where: str, cure: str) -> SuiteError:
    found = str(error) or type(error).__name__
    return SuiteError(
        expected="an image that Pillow can decode",
        found="no such file" if isinstance(error, FileNotFoundError) else found,
        where=where,
        cure=cure,
    )
