"""Checkpoints that may go: all but the last and the best of a run."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bimamba.folders import used_space
from bimamba.resuming import newest_checkpoint
from bimamba.run_directory import borrowed_run_directory
from bimamba.run_files import RunFiles

Keep = Literal["both", "best", "last", "none"]


def removable_checkpoints(run: RunFiles, keep: Keep) -> list[Path]:
    """Checkpoints of a run that are not kept, by path.

    Args:
        run: The run, of which the summary names the best step. Where that is not known, every
            checkpoint that was once the best is kept as the best.
        keep: What to keep. `last` is the one that `--resume` takes, and `last.ckpt` besides.
    """
    found = sorted(
        [*run.directory.glob("checkpoints/*.ckpt"), *run.directory.glob("hpc_ckpt_*.ckpt")]
    )
    kept: set[Path] = set()
    if keep in ("both", "last"):
        newest = newest_checkpoint(run.directory)
        kept |= {path for path in found if path.name == "last.ckpt" or path == newest}
    if keep in ("both", "best"):
        once_best = [path for path in found if path.name.startswith("best-")]
        pattern = rf"best-\d+-{run.summary.get('best_step')}(-v\d+)?\.ckpt"
        kept |= {path for path in once_best if re.fullmatch(pattern, path.name)} or {*once_best}
    # A link is worth nothing without the file it leads to.
    places = {path.resolve() for path in kept}
    return [path for path in found if path.resolve() not in places]


def remove(run: RunFiles, paths: Sequence[Path]) -> int:
    """Deletes checkpoints of a run that nobody works in.

    Args:
        run: The run.
        paths: Files, or folders of sharded checkpoints.

    Returns:
        Bytes that were freed; 0 where a process has begun to work in the run.
    """
    freed = 0
    with borrowed_run_directory(run.directory) as free:
        for path in paths if free else ():
            freed += checkpoint_size(path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return freed


def checkpoint_size(path: Path) -> int:
    """Bytes of a checkpoint, a file or a folder; of a link, not of what it leads to."""
    if path.is_dir() and not path.is_symlink():
        return used_space(path)
    return path.lstat().st_size
