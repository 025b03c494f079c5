"""Runs below a folder, found, filtered and sorted: what `bimamba runs` works on."""

import math
import operator
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bimamba.folders import used_space
from bimamba.run_directory import borrowed_run_directory
from bimamba.run_files import RunFiles, find_runs, read_run
from blocks.errors import SuiteError

STATUSES = ("running", "died", "interrupted", "failed", "finished", "unknown")
# A run writes a checkpoint every ten minutes by default. Locks do not reach every network disk, so
# one that says it is running and has written something lately is believed.
_LATELY = 3600.0
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Entry:
    """A run as a line of the catalog.

    Args:
        run: Its files, of which only the summary was read.
    """

    run: RunFiles

    @cached_property
    def written(self) -> float:
        """When it last wrote a summary, a metric or a checkpoint, in seconds since 1970."""
        names = ("summary.json", "metrics.csv", "config.yaml", "*.ckpt", "checkpoints/*.ckpt")
        paths = [path for name in names for path in self.run.directory.glob(name)]
        return max(path.lstat().st_mtime for path in paths or [self.run.directory])

    @cached_property
    def size(self) -> int:
        """Bytes on the disk."""
        return used_space(self.run.directory)

    @cached_property
    def at_work(self) -> str:
        """Why a process is believed to work in it; empty if none is."""
        with borrowed_run_directory(self.run.directory) as free:
            if not free:
                return "a process is at work in it"
        recent = time.time() - self.written < _LATELY
        if self.run.status == "running" and recent:
            return "it says that it is running, and has written something within the hour"
        return ""

    @property
    def status(self) -> str:
        """That of the summary; `died` for a run that is running and is not."""
        dead = self.run.status == "running" and not self.at_work
        return "died" if dead else self.run.status

    @property
    def best(self) -> float | None:
        """The best value of the monitored metric; that of the evaluation where none was trained."""
        return (self.run.metrics("best") or self.run.metrics("last")).get(self.run.monitor)

    def facts(self) -> dict[str, Any]:
        """The line for programs."""
        run = self.run
        return {
            "run": run.id,
            "directory": str(run.directory),
            "status": self.status,
            "workload": run.summary.get("workload"),
            "monitor": run.monitor or None,
            "best": self.best,
            "unit": run.unit(run.monitor),
            "params": run.number("params"),
            "macs": run.number("macs"),
            "seconds": run.number("seconds"),
            "written": self.written,
            "size": self.size,
            "problems": run.problems,
        }


def catalog(roots: Sequence[str | Path]) -> list[Entry]:
    """Every run at or below some folders.

    Args:
        roots: Folders.

    Raises:
        SuiteError: A folder does not exist.
    """
    found: dict[Path, Path] = {}
    for root in roots:
        if not Path(root).is_dir():
            raise SuiteError(
                expected="a folder with runs",
                found="a file" if Path(root).exists() else "no such folder",
                where=str(root),
                cure="give the folder that --output of the runs named",
            )
        found |= {run.resolve(): run for run in find_runs(root)}
    return [Entry(read_run(run, summary_only=True)) for run in found.values()]


def metric_filter(text: str) -> Callable[[Entry], bool]:
    """Understands `val/top1>90`: the best value of a metric, and the last where there is no best.

    Args:
        text: A metric, one of > >= < <=, and a number.

    Raises:
        SuiteError: It is something else.
    """
    match = re.fullmatch(r"\s*(.+?)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
    limit = _number(match[3]) if match else math.nan
    if match is None or math.isnan(limit):
        raise SuiteError(
            expected="a metric, one of > >= < <=, and a number, such as 'val/top1>90'",
            found=text,
            where="--metric",
            cure="put it in quotes: > alone would write to a file",
        )
    name, relation = match[1], _RELATIONS[match[2]]

    def passes(entry: Entry) -> bool:
        value = (entry.run.metrics("last") | entry.run.metrics("best")).get(name)
        return value is not None and bool(relation(value, limit))

    return passes


def moment(text: str, option: str) -> float:
    """Understands `90m`, `12h`, `3d`, `2w` ago, or `2026-11-21`, as seconds since 1970.

    Args:
        text: What was written.
        option: Where, for the error.

    Raises:
        SuiteError: It is something else.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text):
        return time.time() - float(match[1]) * _UNITS[match[2]]
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"):
        try:
            return time.mktime(time.strptime(text, form))
        except ValueError:
            continue
    raise SuiteError(
        expected="minutes, hours, days or weeks ago, such as 12h or 3d, or a date: 2026-11-21",
        found=text,
        where=option,
        cure="write one of these",
    )


def by_best(entries: Sequence[Entry]) -> list[Entry]:
    """Best first, by workload and metric, which alone compare; runs without a value last.

    Args:
        entries: What to sort.
    """

    def key(entry: Entry) -> tuple[str, str, bool, float]:
        run, best = entry.run, entry.best
        value = 0.0 if best is None else best if run.summary.get("mode") == "min" else -best
        return str(run.summary.get("workload")), run.monitor, best is None, value

    return sorted(entries, key=key)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
