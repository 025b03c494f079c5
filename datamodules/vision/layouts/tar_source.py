"""Images that stay in tar archives, read by position: any order, any number of workers."""

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.vision.image_sources import Handles
from datamodules.vision.layouts.cached_index import Arrays


class Member(NamedTuple):
    """A file in an archive: its name, and the bytes it takes."""

    name: str
    offset: int
    size: int


class TarSource:
    """Labelled members of tar archives.

    Args:
        archives: Paths.
        archive: Which of them each image lies in, shape (N,).
        offset: Its first byte, shape (N,).
        size: Its bytes, shape (N,).
        name: Its name in the archive, bytes, shape (N,).
        labels: Class indices, shape (N,).
    """

    cure = (
        "copy or download the archive again and compare its size with the source, or write it anew "
        "without this image"
    )

    def __init__(
        self,
        archives: Sequence[Path],
        archive: npt.NDArray[Any],
        offset: npt.NDArray[Any],
        size: npt.NDArray[Any],
        name: npt.NDArray[Any],
        labels: npt.NDArray[np.int64],
    ) -> None:
        self._archives = [str(path) for path in archives]
        self._archive, self._offset, self._size, self._name = archive, offset, size, name
        self.labels = labels
        self._handles = Handles()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The archive, and the image's name in it."""
        return f"{self._archives[self._archive[index]]}/{os.fsdecode(self._name[index])}"

    def file_name(self, index: int) -> str:
        """The image's name in the archive, without folders."""
        return os.path.basename(os.fsdecode(self._name[index]))

    def read(self, index: int) -> bytes:
        """The encoded image."""
        archive = self._archives[self._archive[index]]
        return self._handles.read(archive, int(self._offset[index]), int(self._size[index]))


def members(path: Path, file: IO[bytes] | None = None, end: int | None = None) -> Iterator[Member]:
    """Files in a tar archive, in order; hidden ones and folders are passed over.

    Args:
        path: The archive.
        file: The archive, open at its first byte, where it lies inside another one.
        end: First byte after it there.

    Raises:
        SuiteError: Damaged, cut short or compressed.
    """
    try:
        if file is None:
            with open(path, "rb") as opened:
                yield from members(path, opened, path.stat().st_size)
            return
        for entry in tarfile.TarFile(fileobj=file):  # noqa: SIM115  # The file is not ours to close.
            last = entry.offset_data + entry.size
            if end is not None and last > end:
                raise tarfile.ReadError(f"{entry.name} ends {last - end} bytes after the archive")
            # macOS adds "._" files, which hold no images, to the archives it makes.
            if entry.isfile() and not os.path.basename(entry.name).startswith("."):
                yield Member(entry.name, entry.offset_data, entry.size)
    except (tarfile.TarError, EOFError) as error:
        raise SuiteError(
            expected="an uncompressed tar archive, complete",
            found=_why(path, error),
            where=str(path),
            cure="decompress it first" if _compressed(path) else TarSource.cure,
        ) from error


def member_arrays(found: Sequence[tuple[int, Member, int]]) -> Arrays:
    """Arrays of a `TarSource` from (archive, member, label)."""
    return {
        "archive": np.array([archive for archive, _, _ in found], dtype=np.int32),
        "offset": np.array([member.offset for _, member, _ in found], dtype=np.int64),
        "size": np.array([member.size for _, member, _ in found], dtype=np.int64),
        "name": np.array([os.fsencode(member.name) for _, member, _ in found], dtype=np.bytes_),
        "labels": np.array([label for _, _, label in found], dtype=np.int64),
    }


def _compressed(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"))


def _why(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "an empty file"
    return "a compressed archive" if _compressed(path) else str(error)
