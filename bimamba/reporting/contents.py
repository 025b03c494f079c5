"""What a report is about: runs in groups that compare, searches around them, and what failed."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from bimamba.ablation.state import last_words
from bimamba.comparison.report import comparison_table
from bimamba.comparison.rows import check_comparable
from bimamba.comparison.selection import Remark, find_directories, select
from bimamba.comparison.table import Table
from bimamba.comparison.variants import differences, group_runs
from bimamba.run_files import RunFiles, read_run
from blocks.errors import SuiteError

_RECORDS = {"ablation.json": "table.md", "sweep.json": "trials.md"}


@dataclass(frozen=True)
class Group:
    """Runs that measured the same.

    Args:
        title: Workload and data.
        variants: Runs by what tells them apart; those that differ in the seed alone are one.
        table: A row for each variant.
        differences: Keys of the configuration in which they differ, with the value of every run.
    """

    title: str
    variants: dict[str, list[RunFiles]]
    table: Table
    differences: dict[str, list[str]]

    @property
    def runs(self) -> list[RunFiles]:
        """All of them, variant after variant."""
        return [run for runs in self.variants.values() for run in runs]

    @property
    def best(self) -> RunFiles:
        """The run with the best monitored metric."""

        def key(run: RunFiles) -> float:
            value = (run.metrics("best") or run.metrics("last")).get(run.monitor)
            if value is None:
                return float("inf")
            return value if run.summary.get("mode") == "min" else -value

        return min(self.runs, key=key)


@dataclass(frozen=True)
class Experiment:
    """A folder that `bimamba ablate` or `bimamba sweep` wrote.

    Args:
        directory: The folder.
        kind: `ablation` or `sweep`.
        facts: Its record, for programs.
        rows: Its table, the heading first.
        pictures: Its pictures.
    """

    directory: Path
    kind: str
    facts: dict[str, Any]
    rows: list[list[str]]
    pictures: list[Path]


@dataclass(frozen=True)
class Contents:
    """Everything that a report says.

    Args:
        groups: Runs that compare, the largest group first.
        experiments: Searches and ablations among what was named.
        left_out: Runs without a result, and why.
        doubtful: Runs to be read with care.
    """

    groups: list[Group]
    experiments: list[Experiment]
    left_out: list[Remark]
    doubtful: list[Remark]


def gather(words: Sequence[str]) -> Contents:
    """Reads runs and puts together what compares.

    Args:
        words: Runs, folders with runs below them, or patterns.

    Raises:
        SuiteError: A word means no run, or no run has a result.
    """
    directories = find_directories(words)
    runs: list[RunFiles] = []
    left_out: list[Remark] = []
    doubtful: list[Remark] = []
    for directory in directories:
        try:
            found = select([directory], None, unfinished=False)
        except SuiteError as error:
            run = read_run(directory, summary_only=True)
            left_out.append(Remark(run.id, _reason(error, run)))
            continue
        runs += found.runs
        doubtful += found.doubtful
    if not runs:
        raise SuiteError(
            expected="a run with results",
            found="; ".join(f"{run}: {text}" for run, text in left_out),
            where=" ".join(words),
            cure="wait until one has finished",
        )
    groups = sorted((_group(members) for members in _comparable(runs)), key=lambda g: -len(g.runs))
    folders = dict.fromkeys(directory.parent for directory in directories)
    experiments = [made for folder in folders if (made := _experiment(folder)) is not None]
    return Contents(groups, experiments, left_out, doubtful)


def _reason(error: SuiteError, run: RunFiles) -> str:
    """Why a run has no result, in its own words where its experiment kept a log of them."""
    log = run.directory.parent / "logs" / f"{run.directory.name}.txt"
    told = str(error).partition("found: ")[2].splitlines()[0].removeprefix(f"{run.id}: ")
    words = last_words(log)
    return f"{told}: {words}" if words else told


def _comparable(runs: Sequence[RunFiles]) -> list[list[RunFiles]]:
    found: list[list[RunFiles]] = []
    for run in runs:
        for group in found:
            with suppress(SuiteError):
                check_comparable([group[0], run])
                if group[0].monitor == run.monitor:
                    group.append(run)
                    break
        else:
            found.append([run])
    return found


def _group(runs: list[RunFiles]) -> Group:
    variants = group_runs(runs)
    data = runs[0].section("data")
    where = "embedded synthetic data" if data.get("synthetic") else str(data.get("root"))
    title = f"{runs[0].summary.get('workload') or 'unknown workload'} on {where}"
    monitors = list(dict.fromkeys(run.monitor for run in runs if run.monitor))
    logged = {name for run in runs for which in ("best", "last") for name in run.metrics(which)}
    # An evaluation on other data, or by another verb, need not have what training looks at.
    table = comparison_table(variants, [name for name in monitors if name in logged] or None)
    return Group(title, variants, table, differences(runs))


def _experiment(folder: Path) -> Experiment | None:
    for name, table in _RECORDS.items():
        try:
            facts = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        rows: list[list[str]] = []
        with suppress(OSError):
            rows = _markdown_rows((folder / table).read_text(encoding="utf-8"))
        kind, drawn = name.removesuffix(".json"), sorted(folder.glob("*.png"))
        return Experiment(folder, kind, facts, rows, drawn)
    return None


def _markdown_rows(text: str) -> list[list[str]]:
    """Cells of the table for readers, without their marks."""
    rows = []
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            plain = (re.sub(r"\*\*|(?<!\\)`", "", c).replace("<br>", ", ") for c in cells)
            rows.append([unescape(re.sub(r"\\(.)", r"\1", cell)).strip() for cell in plain])
    return rows
