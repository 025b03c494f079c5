"""From finished runs to table and figures. Only files of runs are read; nothing is remembered."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bimamba.ablation.plan import Plan, PlannedRun
from bimamba.ablation.state import Standing, foreign_settings, look
from bimamba.comparison.figures import draw_bars, draw_curves
from bimamba.comparison.formats import write_table
from bimamba.comparison.rows import check_comparable, common_columns, group_row, value
from bimamba.comparison.table import Column, Row, Table, aggregate
from bimamba.run_files import RunFiles
from blocks.errors import SuiteError
from blocks.files import write_json

SCHEMA = 1


@dataclass(frozen=True)
class Results:
    """What an ablation has come to so far.

    Args:
        table: None while no run has finished.
        files: Written files.
        problems: Why runs or metrics are not in the table, a sentence each.
    """

    table: Table | None
    files: tuple[Path, ...]
    problems: tuple[str, ...]


def write_results(plan: Plan, *, figures: bool = True) -> Results:
    """Writes `table.csv`, `.md`, `.tex`, `curves.png`, `bars.png` and `ablation.json`.

    Args:
        plan: What was planned.
        figures: Draw them too, which takes a second.
    """
    standings = {run.name: look(run, whole=True) for run in plan.runs}
    problems: list[str] = []
    runs = _usable(plan, standings, problems)
    record = _record(plan, standings)
    if not runs:
        problems.append("no run has finished: there is no table yet")
        return Results(None, (record,), tuple(problems))
    metrics = _known_metrics(plan, list(runs.values()), problems)
    table = build_table(plan, standings, runs, metrics, problems)
    files = [*write_table(table, plan.directory), record]
    if figures:
        files += _figures(plan, table, runs, metrics, problems)
    return Results(table, tuple(files), tuple(problems))


def build_table(
    plan: Plan,
    standings: Mapping[str, Standing],
    runs: Mapping[str, RunFiles],
    metrics: Sequence[str],
    problems: Sequence[str] = (),
) -> Table:
    """A row per variant and size, in the order of the file.

    Args:
        plan: What was planned.
        standings: Where each run stands, by name.
        runs: Those that count, by name.
        metrics: Columns before the costs.
        problems: Sentences for the notes.
    """
    columns = common_columns(list(runs.values()), metrics)
    rows = []
    for group in plan.params:
        members = [runs[run.name] for run in plan.group(group) if run.name in runs]
        if members:
            rows.append(group_row(group, members, columns))
        else:
            states = {standings[run.name].state for run in plan.group(group)}
            rows.append(Row(group, {columns[0].name: ", ".join(sorted(states))}, ()))
    notes = ["Mean ± half width of the 95 % confidence interval over the runs of a row."]
    counters = {str(run.summary["macs_counter"]) for run in runs.values() if _counted(run)}
    if counters:
        notes.append(f"MACs counted by {', '.join(sorted(counters))}.")
    if plan.ablation.parallel > 1:
        notes.append(
            f"Runs of the latest call shared the machine, {plan.ablation.parallel} at once."
        )
    title = f"{plan.ablation.experiment}: {len(runs)} of {len(plan.runs)} runs"
    table = Table(title, columns, tuple(rows), (*notes, *(f"{text}." for text in problems)))
    names = [column.name for column in columns if column.name in metrics]
    return _with_differences(plan, table, runs, names) if plan.ablation.baseline else table


def _with_differences(
    plan: Plan, table: Table, runs: Mapping[str, RunFiles], metrics: Sequence[str]
) -> Table:
    """Adds, for each metric, its difference from the baseline of equal size and seed."""
    baseline = plan.ablation.baseline
    planned = {(run.variant, run.size, run.seed): run for run in plan.runs}

    def difference(run: PlannedRun, metric: str) -> float | None:
        other = planned[(str(baseline), run.size, run.seed)]
        if run.name not in runs or other.name not in runs or run.variant == baseline:
            return None
        one, two = value(runs[run.name], metric), value(runs[other.name], metric)
        return None if one is None or two is None else one - two

    columns, cells = list(table.columns), {row.label: dict(row.cells) for row in table.rows}
    for metric in metrics:
        place = next(i for i, column in enumerate(columns) if column.name == metric)
        shown = columns[place]
        name = f"{metric}-{baseline}"
        columns.insert(place + 1, Column(name, f"{shown.title} - {baseline}", shown.unit))
        for row in table.rows:
            found = [difference(run, metric) for run in plan.group(row.label)]
            numbers = [number for number in found if number is not None]
            cells[row.label][name] = aggregate(numbers) if numbers else None
    rows = tuple(replace(row, cells=cells[row.label]) for row in table.rows)
    note = f"Differences from {baseline} are taken seed by seed."
    return replace(table, columns=tuple(columns), rows=rows, notes=(*table.notes, note))


def _usable(
    plan: Plan, standings: Mapping[str, Standing], problems: list[str]
) -> dict[str, RunFiles]:
    """Finished runs of this plan that measure the same; the others get a sentence."""
    usable: dict[str, RunFiles] = {}
    for run in plan.runs:
        standing = standings[run.name]
        if standing.state != "finished" or standing.files is None:
            if standing.state in ("failed", "diverged"):
                problems.append(f"{run.name} {standing.state}: {standing.reason}")
            continue
        if differences := foreign_settings(run, plan.read):
            problems.append(f"{run.name} was made by another configuration: {differences[0]}")
            continue
        try:
            check_comparable([*list(usable.values())[:1], standing.files])
        except SuiteError as error:
            found = next(line for line in str(error).splitlines() if line.startswith("found"))
            problems.append(f"{run.name} does not compare with the others, {found}")
            continue
        usable[run.name] = standing.files
    return usable


def _known_metrics(plan: Plan, runs: Sequence[RunFiles], problems: list[str]) -> list[str]:
    """The wanted metrics that somebody logs; what is monitored where none are wanted."""
    known: list[str] = []
    for name in plan.ablation.metrics or ():
        try:
            common_columns(runs, [name])
            known.append(name)
        except SuiteError as error:
            cure = str(error).splitlines()[-1].removeprefix("cure: ")
            problems.append(f"no run logs the metric {name}: {cure}")
    return known or _monitors(runs)


def _figures(
    plan: Plan,
    table: Table,
    runs: Mapping[str, RunFiles],
    metrics: Sequence[str],
    problems: list[str],
) -> list[Path]:
    """Curves of all metrics, and the first one with its intervals."""
    names = metrics
    groups = {
        group: [runs[run.name] for run in plan.group(group) if run.name in runs]
        for group in plan.params
    }
    drawn = {group: members for group, members in groups.items() if members}
    curves = [*names, *(n for n in ("val/loss", "train/loss") if n not in names)]
    written = []
    for name in ("curves.png", "bars.png"):
        path = plan.directory / name
        try:
            if name == "curves.png":
                draw_curves(drawn, curves, path)
            else:
                draw_bars(table, names[0], path)
            written.append(path)
        except SuiteError as error:
            problems.append(f"{name}: {' '.join(str(error).split())}")
    return written


def _record(plan: Plan, standings: Mapping[str, Standing]) -> Path:
    """`ablation.json`: the plan, and where each run stands."""
    path = plan.directory / "ablation.json"
    write_json(
        path,
        {
            "schema": SCHEMA,
            "experiment": plan.ablation.experiment,
            "file": str(plan.ablation.path),
            "config": [str(file) for file in plan.ablation.config],
            "parallel": plan.ablation.parallel,
            "baseline": plan.ablation.baseline,
            "runs": [
                {
                    "run": f"{plan.ablation.experiment}/{run.name}",
                    "variant": run.variant,
                    "size": run.size or None,
                    "seed": run.seed,
                    "settings": settings_hash(run),
                    "state": standings[run.name].state,
                    "reason": standings[run.name].reason or None,
                }
                for run in plan.runs
            ],
        },
    )
    return path


def settings_hash(run: PlannedRun) -> str:
    """Twelve letters that stand for all that decides the results of a run.

    Args:
        run: The run.
    """
    text = json.dumps(run.settings(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _monitors(runs: Sequence[RunFiles]) -> list[str]:
    return list(dict.fromkeys(run.monitor for run in runs if run.monitor))


def _counted(run: RunFiles) -> bool:
    return bool(run.summary.get("macs_counter"))
