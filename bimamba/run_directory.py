"""Names of run directories: runs/EXPERIMENT/RUN, never reused by a fresh run."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from blocks.errors import SuiteError

fcntl: Any = None
with suppress(ImportError):  # Windows has none: two runs in one folder go unnoticed there.
    import fcntl

# Children that Lightning starts find here the name that their parent chose.
_ENVIRONMENT = "BIMAMBA_RUN_DIRECTORY"
_claims: list[int] = []
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
            cure="choose another --run_name, or delete the folder if its results are not needed",
        )
    if create:
        _make(directory)
        claim_run_directory(directory)
    os.environ[_ENVIRONMENT] = str(directory)
    return directory


def claim_run_directory(directory: Path) -> Path:
    """Locks a run directory until `release_run_directories`, or until this process dies.

    Args:
        directory: An existing run directory.

    Raises:
        SuiteError: Another process is running in it.
    """
    if fcntl is None or any(int(os.environ.get(rank, 0)) > 0 for rank in _RANKS):
        return directory
    handle = os.open(directory, os.O_RDONLY)  # Stays open: the system frees it with the process.
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise SuiteError(
            expected="a run directory that nobody is using",
            found="another process at work in it",
            where=str(directory),
            cure="wait for that run, or start this one under another --run_name",
        ) from error
    _claims.append(handle)
    os.environ[_ENVIRONMENT] = str(directory)
    return directory


@contextmanager
def borrowed_run_directory(directory: Path) -> Iterator[bool]:
    """Keeps runs out of a directory for the length of a block.

    Args:
        directory: An existing run directory.

    Yields:
        Whether nobody is at work in it; True as well where the system has no locks.
    """
    if fcntl is None:
        yield True
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def release_run_directories() -> None:
    """Gives up every claim of this process."""
    while _claims:
        os.close(_claims.pop())


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
