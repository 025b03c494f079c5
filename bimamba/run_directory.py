"""Names of run directories: runs/EXPERIMENT/RUN, never reused by a fresh run."""

import os
import time
from pathlib import Path

from blocks.errors import SuiteError

# Children that Lightning starts find here the name that their parent chose.
_ENVIRONMENT = "BIMAMBA_RUN_DIRECTORY"
# Set by Lightning and torchrun, torchrun, SLURM.
_RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")


def new_run_directory(experiment: Path, run: str | None, verb: str, *, create: bool) -> Path:
    """Makes the directory of a new run.

    Args:
        experiment: Folder of the experiment.
        run: Name of the run; `None` takes the time.
        verb: What is run; evaluations carry it in their names.
        create: Make the folder; otherwise only name it.

    Returns:
        The directory. Processes other than the first one write nothing and make nothing.

    Raises:
        SuiteError: It exists and holds files, or cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = run or (stamp if verb == "fit" else f"{verb}-{stamp}")
    directory = experiment / name
    if any(int(os.environ.get(rank, 0)) > 0 for rank in _RANKS):
        return Path(os.environ.get(_ENVIRONMENT, directory))
    if run is None:
        number = 2
        while directory.exists():
            directory = experiment / f"{name}-{number}"
            number += 1
    elif directory.is_dir() and any(directory.iterdir()):
        raise SuiteError(
            expected="a new run directory",
            found="one that holds files",
            where=str(directory),
            cure="choose another --run, or delete the folder if its results are not needed",
        )
    if create:
        _make(directory)
    os.environ[_ENVIRONMENT] = str(directory)
    return directory


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".writable").touch()
        (directory / ".writable").unlink()
    except OSError as error:
        raise SuiteError(
            expected="a folder to write results to",
            found=f"{error.strerror}",
            where=str(directory),
            cure="set --output to a folder you may write to",
        ) from error
