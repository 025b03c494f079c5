"""Arrays that take minutes to gather from archives and change only when these do."""

import contextlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.files import atomic_path, cache_dir
from datamodules.info import digest

Arrays = Mapping[str, npt.NDArray[Any]]


def cached_arrays(kind: str, files: Sequence[Path], build: Callable[[], Arrays]) -> Arrays:
    """The arrays that `build` gathers, from the cache where it has them.

    They are built again when a file has another size or time of change. Several processes may
    build at once; each writes the whole and renames it.

    Args:
        kind: What they are, with a version: raise it whenever `build` changes.
        files: What they are gathered from.
        build: Gathers them; numbers and bytes only.
    """
    stats = ((file, file.stat()) for file in files)
    lines = (f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)
    path = cache_dir() / "indices" / f"{kind}_{digest(lines)}.npz"
    absent_or_damaged = (OSError, ValueError, EOFError, zipfile.BadZipFile)
    with contextlib.suppress(*absent_or_damaged), np.load(path, allow_pickle=False) as stored:
        return dict(stored)
    arrays = build()
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    return arrays
