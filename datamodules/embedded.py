"""Embedded data sets: written once into the cache, whole or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from blocks.files import cache_dir


def generate_once(name: str, write: Callable[[Path], None]) -> Path:
    """Folder of an embedded data set; writes it on the first call.

    The data is written beside its final place and renamed, so a folder that exists is complete.
    Two processes may start at once: both write, the first rename wins, the other copy is removed.

    Args:
        name: Folder name in the cache. It carries a version, e.g. "digits_v1": raise it whenever
            `write` changes what it writes.
        write: Fills the empty folder it is given, the same way on every call.

    Returns:
        The folder.
    """
    target = cache_dir() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as workshop:
        draft = Path(workshop) / name
        draft.mkdir()
        write(draft)
        try:
            draft.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    return target
