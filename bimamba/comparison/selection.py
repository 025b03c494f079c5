"""Which runs take part: the words of a command as runs, and what keeps some of them out."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bimamba.comparison.rows import common_columns, value
from bimamba.comparison.variants import repeated_seeds
from bimamba.run_files import RunFiles, find_runs, read_run
from blocks.errors import SuiteError

_ENDED = {
    "running": "it has not ended, or died without saying so",
    "interrupted": "it was interrupted",
    "failed": "it ended with an error",
    "unknown": "nothing tells how it ended",
}


class Remark(NamedTuple):
    """Why a run is left out, or read with care."""

    run: str
    text: str


@dataclass(frozen=True)
class Selection:
    """Runs to compare.

    Args:
        runs: Those that take part.
        left_out: Those that do not.
        doubtful: Those that do, with what a reader should know of them.
    """

    runs: tuple[RunFiles, ...]
    left_out: tuple[Remark, ...]
    doubtful: tuple[Remark, ...]


def find_directories(words: Sequence[str]) -> list[Path]:
    """Run directories that the words mean, each once, in the order of the words.

    Args:
        words: Run directories, folders with runs below them, or patterns such as `runs/vim_*/*`.

    Raises:
        SuiteError: A word means no run.
    """
    found: dict[Path, Path] = {}
    for word in words:
        paths = [Path(word)] if Path(word).exists() else [Path(p) for p in sorted(glob.glob(word))]
        runs = [run for path in paths for run in find_runs(path)]
        if not runs:
            raise SuiteError(
                expected="a run directory, a folder with runs below it, or a pattern of such",
                found="no run there" if paths else "nothing there",
                where=word,
                cure="see bimamba runs list for those there are",
            )
        found |= {run.resolve(): run for run in runs if run.resolve() not in found}
    return list(found.values())


def select(
    directories: Sequence[Path], metrics: Sequence[str] | None, *, unfinished: bool
) -> Selection:
    """Reads runs and keeps those that have a result.

    Args:
        directories: Run directories.
        metrics: What a run must have; None for what it monitors.
        unfinished: Take runs that have not finished too, with what they had reached.

    Raises:
        SuiteError: No run is left, or none logs one of the metrics.
    """
    left_out, runs = [], []
    for directory in directories:
        run = read_run(directory)
        reason = _unusable(run, unfinished)
        if reason:
            left_out.append(Remark(run.id, reason))
        else:
            runs.append(run)
    if runs and metrics:
        common_columns(runs, metrics)  # Refuses a name that nobody knows.
    trained = any(run.metrics("best") for run in runs)
    kept = []
    for run in runs:
        reason = _without_result(run, metrics, trained)
        if reason:
            left_out.append(Remark(run.id, reason))
        else:
            kept.append(run)
    if not kept:
        raise SuiteError(
            expected="a run with results",
            found="; ".join(f"{run}: {reason}" for run, reason in left_out),
            where="the runs to compare",
            cure="wait until one has finished, or add --unfinished",
        )
    return Selection(tuple(kept), tuple(left_out), tuple(_doubts(kept)))


def _unusable(run: RunFiles, unfinished: bool) -> str:
    if not run.summary:
        return " ".join(run.problems)
    return "" if unfinished or run.status == "finished" else _ENDED.get(run.status, run.status)


def _without_result(run: RunFiles, metrics: Sequence[str] | None, trained: bool) -> str:
    """Why a run has nothing to show; `trained` where others have been trained."""
    if not metrics and trained and not run.metrics("best"):
        trains = bool(run.summary.get("steps"))
        never = f"it has not reached a finite {run.monitor}"
        return never if trains else "it only evaluates, and others train"
    wanted = metrics or ([run.monitor] if trained else list(run.metrics("last")))
    if any(value(run, name) is not None for name in wanted):
        return ""
    logged = {*run.metrics("best"), *run.metrics("last")} & {*wanted}
    names = ", ".join(wanted)
    return f"{names} is not finite: it diverged" if logged else f"it does not log {names}"


def _doubts(runs: Sequence[RunFiles]) -> list[Remark]:
    doubts = []
    for run in runs:
        texts = list(run.problems)
        if run.status != "finished":
            texts.append(f"{_ENDED.get(run.status, run.status)}; values are those it had reached")
        if run.metrics("best") and run.metrics("last").get(run.monitor) is None:
            texts.append(f"its last {run.monitor} is not finite: it diverged after its best")
        doubts += [Remark(run.id, text) for text in texts]
    doubts += [
        Remark(run.id, "same configuration and seed as another run: no independent result")
        for run in repeated_seeds(runs)
    ]
    return doubts
