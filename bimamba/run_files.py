"""A run directory, read back: what every tool that looks at finished runs starts from.

Only files are read, no code and no data set. A run that is still working, died early or was copied
in part is read as far as it goes; what is missing stands in `problems`, in words for its reader.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from blocks.errors import SuiteError

T = TypeVar("T")
# Beyond what float32 holds: such a value is no result, and no axis reaches it.
_LARGEST = 1e39
_FILES = ("summary.json", "config.yaml", "metrics.csv")
PICTURES = {".gif": "gif", ".jpeg": "jpeg", ".jpg": "jpeg", ".png": "png", ".webp": "webp"}


class Point(NamedTuple):
    """A value at a step of the optimiser; NaN where the run diverged."""

    step: int
    value: float


@dataclass(frozen=True)
class RunFiles:
    """What the files of one run say. Numbers that are absent or not finite are `None`.

    Args:
        directory: The run directory.
        summary: `summary.json`, or nothing.
        config: `config.yaml`, or nothing: the merged configuration, defaults included.
        changes: Text of `config_changes.yaml`: only what differs from the defaults.
        curves: Columns of `metrics.csv` by name, e.g. `val/loss`, each in the order of the steps.
        pictures: Image files under `pictures/`, by name.
        problems: What is missing or unreadable, a sentence each.
    """

    directory: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    changes: str
    curves: Mapping[str, list[Point]]
    pictures: list[Path]
    problems: list[str]

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.summary.get("experiment") or self.directory.parent.name)

    @property
    def run(self) -> str:
        """Name of the run."""
        return str(self.summary.get("run") or self.directory.name)

    @property
    def id(self) -> str:
        """`experiment/run`, which leads from a number back to its files."""
        return f"{self.experiment}/{self.run}"

    @property
    def status(self) -> str:
        """`running`, `finished`, `interrupted`, `failed`, or `unknown` without a summary."""
        return str(self.summary.get("status") or "unknown")

    @property
    def monitor(self) -> str:
        """The metric that decides what is best; empty without a summary."""
        return str(self.summary.get("monitor") or "")

    def metrics(self, which: str) -> dict[str, float | None]:
        """Metrics of the summary.

        Args:
            which: `best`, `last` or `raw`.
        """
        found = self.section("metrics").get(which)
        names = found if isinstance(found, Mapping) else {}
        return {str(name): _finite(value) for name, value in names.items()}

    def unit(self, metric: str) -> str:
        """Unit of a metric such as `val/top1` or `val/pose/p1`; empty for a pure number."""
        units, name = self.section("units"), metric.rpartition("/")[2]
        found = units.get(metric.partition("/")[2]) or units.get(name)
        return str(found or ("bytes" if name == "peak_memory" else ""))

    def number(self, name: str) -> float | None:
        """A number of the summary, such as `seconds` or `params`."""
        return _finite(self.summary.get(name))

    def section(self, name: str) -> Mapping[str, Any]:
        """A mapping of the summary, such as `data`, `versions` or `git`."""
        found = self.summary.get(name)
        return found if isinstance(found, Mapping) else {}


def find_runs(root: str | Path) -> list[Path]:
    """Run directories at or below a folder, by path; what lies inside a run is no run.

    Args:
        root: A run directory, an experiment, or a folder above several.
    """
    found = []
    for folder, inner, files in os.walk(root):
        if {*_FILES} & {*files}:
            found.append(Path(folder))
            inner.clear()
        inner.sort()
    return sorted(found)


def read_run(directory: str | Path, *, summary_only: bool = False) -> RunFiles:
    """Reads the files of a run.

    Args:
        directory: Folder with `config.yaml`, `summary.json` and `metrics.csv`, or some of them.
        summary_only: Read `summary.json` and nothing else, for tools that look at many runs.

    Raises:
        SuiteError: Not the folder of a run.
    """
    directory = Path(directory)
    _check(directory)
    problems: list[str] = []
    summary = _mapping(_read(directory / "summary.json", json.loads, {}, problems))
    if summary_only:
        return RunFiles(directory, summary, {}, "", {}, [], problems)
    curves: dict[str, list[Point]] = {}
    curves = _read(directory / "metrics.csv", _curves, curves, problems)
    folder = directory / "pictures"
    return RunFiles(
        directory=directory,
        summary=summary,
        config=_mapping(_read(directory / "config.yaml", _yaml, {}, problems)),
        changes=_read(directory / "config_changes.yaml", str, "", []),
        curves=curves,
        pictures=sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURES),
        problems=problems,
    )


def _check(directory: Path) -> None:
    if any((directory / name).is_file() for name in _FILES):
        return
    inner = directory.glob("**/summary.json") if directory.is_dir() else ()
    runs = sorted(inner, key=lambda path: path.stat().st_mtime)
    raise SuiteError(
        expected="the directory of a run, with summary.json, config.yaml or metrics.csv",
        found="a folder without them" if directory.is_dir() else "no such folder",
        where=str(directory),
        cure=f"did you mean {runs[-1].parent}?" if runs else "give runs/EXPERIMENT/RUN",
    )


def _read(path: Path, parse: Callable[[str], T], otherwise: T, problems: list[str]) -> T:
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        problems.append(f"{path.name} is not there.")
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        problems.append(f"{path.name} cannot be read: {error}.")
    return otherwise


def _yaml(text: str) -> Any:
    """With libyaml, where there is one, in a tenth of the time."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _curves(text: str) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for row in csv.DictReader(text.splitlines()):
        step = _float(row.pop("step", None))
        if step is None or not math.isfinite(step):
            continue  # The last row of a file that is being written.
        for name, cell in row.items():
            if name != "epoch" and (value := _float(cell)) is not None:
                curves.setdefault(name, []).append(Point(int(step), value))
    return curves


def _float(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) and cell else None
    except ValueError:
        return None
    return value if value is None or abs(value) < _LARGEST else math.nan


def _finite(value: object) -> float | None:
    """A number as it is, whole ones too; anything else is None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and math.isfinite(value) else None  # type: ignore[return-value,arg-type]


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}
