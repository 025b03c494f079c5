"""What a source of images offers, a source in memory, and the open files of one in archives.

A source knows labels and names without reading an image. It may be copied into worker processes,
by fork or by pickling.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from blocks.errors import SuiteError

# Open at a time by one process; systems often allow 1,024 files, and shards may be more.
_MOST_HANDLES = 128


class ImageSource(Protocol):
    """Labelled images by index.

    Attributes:
        labels: Class indices, int64 of shape (N,).
        cure: What to do when an image cannot be read.
    """

    labels: npt.NDArray[np.int64]
    cure: str

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """Where an image lies: its file, or its place in an archive."""

    def file_name(self, index: int) -> str:
        """What the image itself is called, without folders; perhaps nothing."""

    def read(self, index: int) -> bytes | Image.Image:
        """The encoded image, or the image where it is stored as pixels."""


class ArraySource:
    """Images that lie in memory as pixels.

    Args:
        pixels: uint8 of shape (N, H, W, 3).
        labels: Class indices.
        names: What each image is called.
        where: File they come from.
    """

    cure = "copy or download the file again"

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        names: Sequence[str],
        where: Path,
    ) -> None:
        self._pixels, self.labels = pixels, labels
        self._names = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
        self._where = where

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The file they come from, and the image's name in it."""
        return f"{self._where}/{self.file_name(index)}"

    def file_name(self, index: int) -> str:
        """The image's name in the file."""
        return os.fsdecode(self._names[index])

    def read(self, index: int) -> Image.Image:
        """The image."""
        return Image.fromarray(self._pixels[index])


class Handles:
    """Open files of the current process, the least recently used closed first.

    Neither a fork nor a pickle carries them along: processes that share a file's position would
    read each other's bytes.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._open: OrderedDict[str, IO[bytes]] = OrderedDict()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Bytes of a part of a file.

        Raises:
            SuiteError: The file ends before it.
        """
        if self._owner != os.getpid():
            self._owner, self._open = os.getpid(), OrderedDict()
        file = self._open.pop(path, None)
        if file is None:
            if len(self._open) >= _MOST_HANDLES:
                self._open.popitem(last=False)[1].close()
            file = open(path, "rb", buffering=0)  # noqa: SIM115  # Closed when others need its place.
        self._open[path] = file
        file.seek(offset)
        data = file.read(size)
        if len(data) != size:
            raise SuiteError(
                expected=f"{size} bytes from byte {offset}",
                found=f"{len(data)} bytes: the file became shorter after it was indexed",
                where=path,
                cure="copy or download it again, and compare its size with the source",
            )
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"_owner": 0, "_open": OrderedDict()}
