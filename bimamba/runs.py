"""`bimamba runs list|show|resume|export|import|prune`: what has been run, what is done with it."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bimamba.comparison.selection import find_directories
from bimamba.findings import size
from bimamba.formats import duration, memory, short
from bimamba.pruning import checkpoint_size, removable_checkpoints, remove
from bimamba.run_archive import export_run, import_run
from bimamba.run_catalog import STATUSES, Entry, by_best, catalog, metric_filter, moment
from bimamba.run_files import RunFiles, read_run
from blocks.errors import SuiteError

_DESCRIPTION = """\
Looks after run directories, from their files alone.

  list [ROOT ...]   a line a run, newest first; the default of ROOT is runs
  show RUN          one run: results, cost, changes of the configuration, files, problems
  resume RUN        goes on with a run that was cut, as it was configured
  export RUN        a zip with its results, configuration and weights
  import FILE.zip   such a zip as a run directory, for every tool that reads runs
  prune RUN ...     deletes checkpoints that are neither the last nor the best; says what
                    it would do until it is given --yes
"""
_LIST = """\
examples:
  bimamba runs list
  bimamba runs list --workload ImageClassification --metric 'val/top1>90' --sort best
  bimamba runs list --status failed --since 2d
  bimamba runs list --json
"""
_PRUNE = """\
A run in which a process is at work is never touched, and neither is one that says it is running and
has written something within the hour. Summaries, curves, pictures and pages stay in any case.

examples:
  bimamba runs prune runs/vim_tiny
  bimamba runs prune runs --status failed --before 2w --keep none --yes
"""
_COLOURS = {"finished": "green", "running": "cyan", "interrupted": "yellow"}
# What a narrow terminal goes without, first to last.
_SPARED = ("workload", "params", "time", "size")
_ORDERS: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "age": lambda entries: sorted(entries, key=lambda entry: -entry.written),
    "run": lambda entries: sorted(entries, key=lambda entry: entry.run.id),
    "best": by_best,
    "params": lambda entries: _falling(entries, "params"),
    "seconds": lambda entries: _falling(entries, "seconds"),
    "size": lambda entries: sorted(entries, key=lambda entry: -entry.size),
}


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba runs`; without a sub-verb it is `list`.

    Returns:
        Exit status.

    Raises:
        SuiteError: No such folder or run, or a filter that cannot be read.
    """
    words = list(words)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "list")
    given, more = _parser().parse_known_args(words)
    if more and given.action is not _resume:
        _parser().parse_args(words)  # Says what it does not know.
    given.more = more
    action: Callable[[argparse.Namespace], int] = given.action
    return action(given)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="bimamba runs", description=_DESCRIPTION, formatter_class=raw
    )
    actions = parser.add_subparsers(metavar="list|show|resume|export|import|prune", required=True)
    listing = actions.add_parser("list", epilog=_LIST, formatter_class=raw)
    listing.add_argument("roots", nargs="*", default=["runs"], metavar="ROOT", help="default: runs")
    _add_filters(listing)
    listing.add_argument(
        "--sort", choices=tuple(_ORDERS), default="age", help="largest first; age: newest first"
    )
    listing.add_argument("--reverse", action="store_true", help="the other way round")
    listing.add_argument("--json", action="store_true", help="for programs: bytes and seconds")
    listing.set_defaults(action=_list)
    showing = actions.add_parser("show", description="What the files of one run say.")
    showing.add_argument("run", metavar="RUN", help="runs/EXPERIMENT/RUN")
    showing.set_defaults(action=_show)
    resuming = actions.add_parser(
        "resume", description="Goes on with a run that was cut; --key value changes it, as for fit."
    )
    resuming.add_argument("run", metavar="RUN", help="runs/EXPERIMENT/RUN")
    resuming.set_defaults(action=_resume)
    exporting = actions.add_parser("export", description="Writes a run as one file.")
    exporting.add_argument("run", metavar="RUN", help="runs/EXPERIMENT/RUN")
    exporting.add_argument(
        "--to", type=Path, metavar="FILE.zip", help="default: EXPERIMENT-RUN.zip, here"
    )
    exporting.add_argument(
        "--checkpoints",
        action="store_true",
        help="take checkpoints, from which training goes on, instead of the weights alone",
    )
    exporting.set_defaults(action=_export)
    importing = actions.add_parser("import", description="Unpacks what export wrote.")
    importing.add_argument("file", type=Path, metavar="FILE.zip")
    importing.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR")
    importing.set_defaults(action=_import)
    pruning = actions.add_parser("prune", epilog=_PRUNE, formatter_class=raw)
    pruning.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run, a folder with runs below it, or a pattern"
    )
    _add_filters(pruning)
    pruning.add_argument(
        "--keep",
        choices=("both", "best", "last", "none"),
        default="both",
        help="checkpoints that stay: the best and the last (default), one of them, or none; a run "
        "without its last cannot be resumed",
    )
    pruning.add_argument("--yes", action="store_true", help="delete; without it nothing is")
    pruning.set_defaults(action=_prune)
    for each in (listing, showing, resuming, exporting, importing, pruning):
        each.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--experiment", metavar="NAME", help="of this experiment")
    add("--workload", metavar="CLASS", help="of this workload, such as ImageClassification")
    add("--status", choices=STATUSES, help="died: it says running, and no process is there")
    add("--metric", action="append", metavar="TEST", help="'val/top1>90', of the best value")
    add("--since", metavar="TIME", help="written to since then: 12h, 3d, 2w or 2026-11-21")
    add("--before", metavar="TIME", help="not written to since then")


def _filtered(entries: Sequence[Entry], given: argparse.Namespace) -> list[Entry]:
    tests: list[Callable[[Entry], bool]] = [metric_filter(text) for text in given.metric or ()]
    if given.experiment:
        tests.append(lambda entry: entry.run.experiment == given.experiment)
    if given.workload:
        tests.append(lambda entry: entry.run.summary.get("workload") == given.workload)
    if given.since:
        since = moment(given.since, "--since")
        tests.append(lambda entry: entry.written >= since)
    if given.before:
        before = moment(given.before, "--before")
        tests.append(lambda entry: entry.written < before)
    if given.status:  # Last, for it looks for a process.
        tests.append(lambda entry: entry.status == given.status)
    return [entry for entry in entries if all(test(entry) for test in tests)]


def _list(given: argparse.Namespace) -> int:
    entries = _ORDERS[given.sort](_filtered(catalog(given.roots), given))
    if given.reverse:
        entries.reverse()
    if given.json:
        json.dump([entry.facts() for entry in entries], sys.stdout, indent=2)
        print()
        return 0
    console = Console(highlight=False)
    if not entries:
        console.print(f"no such run below {escape(', '.join(given.roots))}")
        return 0
    lines = [_line(entry) for entry in entries]
    names, wide = list(lines[0]), Console(width=10_000)
    table = _table(lines, names)
    for name in _SPARED:
        if wide.measure(table).maximum <= console.width:
            break
        names.remove(name)
        table = _table(lines, names)
    console.print(table)
    total = sum(entry.size for entry in entries)
    console.print(f"{len(entries)} run{'s' * (len(entries) > 1)}, {size(total)}")
    return 0


def _line(entry: Entry) -> dict[str, str]:
    """A run as marked-up text by column."""
    run, status = entry.run, entry.status
    seconds, params = run.number("seconds"), run.number("params")
    return {
        "run": escape(run.id),
        "status": f"[{_COLOURS.get(status, 'red')}]{escape(status)}[/]",
        "workload": escape(str(run.summary.get("workload") or "")),
        "best": escape(_best(entry)),
        "params": "" if params is None else _count(params),
        "time": "" if seconds is None else duration(seconds),
        "age": _age(time.time() - entry.written),
        "size": size(entry.size),
    }


def _table(lines: Sequence[dict[str, str]], names: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        right = name in ("params", "time", "age", "size")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for line in lines:
        table.add_row(*(line[name] for name in names))
    return table


def _show(given: argparse.Namespace) -> int:
    console = Console(highlight=False)
    run = read_run(given.run)
    console.print(f"[bold]{escape(run.id)}[/]")
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in _facts(run).items():
        facts.add_row(name, escape(text))
    console.print(facts)
    best, last = run.metrics("best"), run.metrics("last")
    if best or last:
        metrics = Table("metric")
        columns = {"best": best, "last": last} if best else {"value": last}
        for name in columns:
            metrics.add_column(name, justify="right")
        for metric in sorted({*best, *last}):
            cells = [short(c[metric]) if metric in c else "" for c in columns.values()]
            metrics.add_row(escape(f"{metric} {run.unit(metric)}"), *cells)
        console.print(metrics)
    if run.changes:
        console.print("[bold]what the configuration changes[/]")
        console.print(escape(run.changes.rstrip()), soft_wrap=True)
    console.print("[bold]files[/]")
    for path in sorted(p for p in run.directory.rglob("*") if p.is_file()):
        name = path.relative_to(run.directory).as_posix()
        console.print(f"  {size(path.lstat().st_size):>9}  {escape(name)}", soft_wrap=True)
    for problem in run.problems:
        console.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    return 0


def _resume(given: argparse.Namespace) -> int:
    run = Path(given.run).absolute()
    read_run(run, summary_only=True)
    if not (run / "config.yaml").is_file():
        raise SuiteError(
            expected="a run with its config.yaml",
            found="none",
            where=str(run),
            cure="give the configuration yourself: bimamba fit --config FILE --resume RUN",
        )
    from bimamba.cli import run as run_verb

    words = ["fit", "--config", str(run / "config.yaml"), "--output", str(run.parent.parent)]
    words += ["--experiment", run.parent.name, "--run_name", run.name, "--resume", "auto"]
    run_verb([*words, *given.more])
    return 0


def _export(given: argparse.Namespace) -> int:
    entry = Entry(read_run(given.run))
    if entry.at_work:
        raise SuiteError(
            expected="a run that nobody is working on",
            found=entry.at_work,
            where=given.run,
            cure="wait for it or stop it first",
        )
    path = given.to or Path(f"{entry.run.experiment}-{entry.run.run}.zip")
    names = export_run(entry.run, path, checkpoints=given.checkpoints)
    print(f"{path}: {len(names)} files, {size(path.stat().st_size)}")
    return 0


def _import(given: argparse.Namespace) -> int:
    print(import_run(given.file, given.output))
    return 0


def _prune(given: argparse.Namespace) -> int:
    console = Console(highlight=False)
    found = [Entry(read_run(d, summary_only=True)) for d in find_directories(given.runs)]
    freed = 0
    for entry in _filtered(found, given):
        if entry.at_work:
            console.print(f"{escape(entry.run.id)}: left alone, {entry.at_work}", soft_wrap=True)
            continue
        paths = removable_checkpoints(entry.run, given.keep)
        for path in paths:
            verb = "deletes" if given.yes else "would delete"
            line = f"{verb} {escape(str(path))}, {size(checkpoint_size(path))}"
            console.print(line, soft_wrap=True)
        freed += remove(entry.run, paths) if given.yes else sum(map(checkpoint_size, paths))
    if given.yes:
        console.print(f"freed {size(freed)}")
    else:
        console.print(f"would free {size(freed)}; nothing was deleted, --yes does it")
    return 0


def _falling(entries: Sequence[Entry], name: str) -> list[Entry]:
    return sorted(entries, key=lambda entry: -(entry.run.number(name) or 0))


def _best(entry: Entry) -> str:
    run = entry.run
    if entry.best is None:
        return ""
    return f"{run.monitor} {short(entry.best)} {run.unit(run.monitor)}".rstrip()


def _facts(run: RunFiles) -> dict[str, str]:
    """What a reader asks of a run first, in words; nothing of what is not known."""
    known: dict[str, tuple[Any, Callable[[Any], str]]] = {
        "status": (Entry(run).status, str),
        "workload": (run.summary.get("workload"), str),
        "seed": (run.summary.get("seed"), str),
        "best step": (run.number("best_step"), short),
        "parameters": (run.number("params"), short),
        "MACs": (run.number("macs"), short),
        "time": (run.number("seconds"), duration),
        "samples/s": (run.number("samples_per_second"), short),
        "peak memory": (run.number("peak_memory"), memory),
        "protocol": (run.summary.get("protocol"), str),
        "data": (run.section("data").get("root"), str),
        "revision": (run.section("git").get("rev"), str),
        "last written": (
            Entry(run).written,
            lambda when: time.strftime("%Y-%m-%d %H:%M", time.localtime(when)),
        ),
        "folder": (Path(run.directory), str),
    }
    return {name: form(item) for name, (item, form) in known.items() if item not in (None, "")}


def _count(number: float) -> str:
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"
