"""Questions about folders that need not exist yet: may one write there, and is there room?"""

import shutil
import tempfile
from pathlib import Path


def nearest_existing(path: Path) -> Path:
    """The path itself, or the closest folder above it that exists."""
    path = path.absolute()
    return next((above for above in (path, *path.parents) if above.exists()), path)


def why_not_writable(path: Path) -> str:
    """What keeps files from being written below `path`; empty if nothing does. Leaves no trace."""
    above = nearest_existing(path)
    if not above.is_dir():
        return f"{above} is a file"
    try:
        # A folder, for that is what comes first, and a file in it.
        with tempfile.TemporaryDirectory(prefix=".bimamba-", dir=above) as folder:
            (Path(folder) / "file").touch()
    except OSError as error:
        return f"{above}: {error.strerror}"
    return ""


def free_space(path: Path) -> int:
    """Free bytes on the disk that `path` is or would be on."""
    return shutil.disk_usage(nearest_existing(path)).free


def used_space(path: Path) -> int:
    """Bytes of all files below `path`; 0 if it does not exist."""
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def short(path: Path) -> str:
    """The path with `~` for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)
