"""`bimamba compare RUN ...`: finished runs side by side, each number with the runs behind it."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bimamba.comparison.formats import to_rich
from bimamba.comparison.report import comparison_table, mixed_keys, write_comparison
from bimamba.comparison.rows import check_comparable
from bimamba.comparison.selection import Remark, find_directories, select
from bimamba.comparison.table import Column, Table
from bimamba.comparison.variants import differences, group_runs

_DESCRIPTION = """\
Puts runs side by side from their files alone: metrics at the best step and at the end, parameters,
MACs, speed, memory and time. Runs that differ in nothing but the seed are one row, with the mean
and its 95 % confidence interval.

Runs of different workloads, data or protocols are refused, since their numbers do not compare.
What has not finished or diverged is left out and named; the rest is compared all the same.
"""
_EXAMPLES = """\
examples:
  bimamba compare runs/vim_tiny runs/vssm_tiny
  bimamba compare 'runs/demo_vision/2026*' --metric val/top1 --metric val/loss
  bimamba compare runs/depths --group-by depth --output tables/depths
"""


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba compare`.

    Returns:
        Exit status.

    Raises:
        SuiteError: No such runs, none with results, runs that do not compare, unknown names.
    """
    given = _parser().parse_args(words)
    selection = select(find_directories(given.runs), given.metric, unfinished=given.unfinished)
    check_comparable(selection.runs)
    groups = group_runs(selection.runs, given.group_by or ())
    table = comparison_table(groups, given.metric)
    if mixed := mixed_keys(groups):
        note = f"Runs of one row differ in {', '.join(mixed)} as well."
        table = dataclasses.replace(table, notes=(*table.notes, note))
    console = Console(highlight=False)
    _show(table, console)
    _show_differences(differences(selection.runs), console)
    _show_remarks("left out", selection.left_out, console)
    _show_remarks("to be read with care", selection.doubtful, console)
    if given.output is None:
        console.print("--output DIR writes tables, curves and differences of configuration")
        return 0
    for path in write_comparison(table, groups, given.output):
        console.print(f"  {escape(str(path))}", soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bimamba compare",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run, a folder with runs below it, or a pattern"
    )
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="show this metric, at the best step and at the end; may be repeated. "
        "Without it: the monitored one so, and all others at the best step",
    )
    parser.add_argument(
        "--group-by",
        action="append",
        metavar="KEY",
        help="one row for each value of this key of the configuration (its last word will do), "
        "of experiment, or of run; may be repeated. Without it: runs that differ in the seed alone",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write table.csv, table.md, table.tex, config_differences.md, curves.png and "
        "means.png there",
    )
    parser.add_argument(
        "--unfinished",
        action="store_true",
        help="take runs that are running, interrupted or failed, with what they had reached",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _show(table: Table, console: Console) -> None:
    """As many columns as the terminal holds: costs go before the first two metrics do."""
    columns = list(table.columns)
    hidden: list[Column] = []
    boundless = Console(width=10_000)  # One of real width would never call a table too wide.
    while True:
        shown = to_rich(dataclasses.replace(table, columns=tuple(columns)))
        if len(columns) < 2 or boundless.measure(shown).maximum <= console.width:
            break
        metrics = [column for column in columns if "/" in column.name]
        hidden.append(metrics[-1] if len(metrics) > 2 else columns[-1])
        columns.remove(hidden[-1])
    console.print(shown)
    for note in table.notes:
        console.print(escape(note))
    if hidden:
        names = ", ".join(column.title for column in table.columns if column in hidden)
        console.print(escape(f"More than fits here, in the files of --output: {names}"))


def _show_differences(table: dict[str, list[str]], console: Console) -> None:
    if table:
        console.print("\n[bold]the configurations differ in[/]")
    for key, values in table.items():
        texts = ", ".join(dict.fromkeys(value for value in values if value))
        console.print(f"  {escape(key)}: {escape(texts)}", soft_wrap=True)


def _show_remarks(title: str, remarks: Sequence[Remark], console: Console) -> None:
    if remarks:
        console.print(f"\n[bold yellow]{title}[/]")
    for run, text in remarks:
        console.print(f"  {escape(run)}: {escape(text)}", soft_wrap=True)
