"""What `--resume` means: no checkpoint, the right one, or the one that was named.

A checkpoint inside a run directory is `RUN/checkpoints/*.ckpt`, or `RUN/hpc_ckpt_*.ckpt` where
SLURM asked for one before it requeued the job.
"""

import json
import re
from pathlib import Path

from blocks.errors import SuiteError


def find_checkpoint(resume: str, experiment: Path, run: str | None, verb: str) -> Path | None:
    """Finds the checkpoint to go on from, or to evaluate.

    Args:
        resume: `never`, `auto`, a checkpoint, or a run directory.
        experiment: Folder of the experiment's runs.
        run: Name of the run, if the user gave one.
        verb: `fit` looks for a run that did not finish; other verbs for any run with weights.

    Returns:
        The file; `None` for `never`, and for `auto` where there is nothing to resume.

    Raises:
        SuiteError: The named file or folder holds no checkpoint, or an evaluation finds none.
    """
    if resume == "never":
        return None
    if resume != "auto":
        path = Path(resume)
        found = path if path.is_file() else newest_checkpoint(path)
        if found is None:
            raise SuiteError(
                expected="never, auto, a checkpoint file or a run directory with checkpoints",
                found="no checkpoint there",
                where=f"--resume {resume}",
                cure="check the path, or use --resume auto",
            )
        return found
    named = verb == "fit" and run is not None
    runs = [experiment / str(run)] if named else _newest_first(experiment)
    for directory in runs:
        unfinished = named or verb != "fit" or _status(directory) != "finished"
        if unfinished and (found := newest_checkpoint(directory)) is not None:
            return found
    if verb != "fit":
        raise SuiteError(
            expected="a run with checkpoints to evaluate",
            found="none",
            where=str(experiment),
            cure="train first, or name one: --resume runs/EXPERIMENT/RUN",
        )
    return None


def newest_checkpoint(directory: Path) -> Path | None:
    """`last.ckpt` of a run, or SLURM's where that is newer.

    Args:
        directory: Run directory.
    """
    found = [directory / "checkpoints" / "last.ckpt", *directory.glob("hpc_ckpt_*.ckpt")]
    found = [path for path in found if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def run_directory_of(checkpoint: Path) -> Path | None:
    """The run directory a checkpoint lies in, `None` for a file from elsewhere."""
    slurm = re.fullmatch(r"hpc_ckpt_\d+\.ckpt", checkpoint.name)
    directory = checkpoint.parent if slurm else checkpoint.parent.parent
    return directory if (directory / "config.yaml").is_file() else None


def _newest_first(experiment: Path) -> list[Path]:
    runs = [path.parent for path in experiment.glob("*/config.yaml")]
    return sorted(runs, key=lambda run: (run / "config.yaml").stat().st_mtime, reverse=True)


def _status(directory: Path) -> str | None:
    try:
        status: str | None = json.loads((directory / "summary.json").read_text())["status"]
    except (OSError, ValueError, KeyError):
        return None
    return status
