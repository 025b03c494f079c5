"""`bimamba ablate FILE.yaml`: trains variants and puts them into one table.

A run is an ordinary run of `bimamba fit` in a directory of its own, so every tool that reads runs
reads these; the ablation itself keeps nothing that is not in those directories.
"""

import argparse
import fnmatch
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bimamba.formats import short
from blocks.errors import SuiteError

if TYPE_CHECKING:
    from bimamba.ablation.plan import Plan, PlannedRun
    from bimamba.ablation.results import Results

_FILE_WIDTH = 160
_DESCRIPTION = """\
Trains named variants x sizes x seeds of one configuration and writes one table of them: mean with
95 % confidence interval, parameters, MACs, samples/s and peak memory, as CSV, Markdown and LaTeX,
with figures. Finished runs are skipped, cut ones go on where they were, and one that fails holds up
nothing: give the same command again to continue. Everything is checked before the first run.
"""
_FILE = """\
the file, for example configs/ablation/vision_directions.yaml:

  experiment: directions            results go to runs/directions; by default the file's name
  config: ../demo/vision.yaml       base configuration beside this file, or a list; later ones win
  overrides:                        for all runs; keys as in the configuration, dotted or nested
    trainer.max_epochs: 8
  variants:                         any key may vary; a class_path replaces its whole subtree
    two_directions: {}
    one_direction: {model.init_args.network.init_args.bimamba_type: none}
  sizes:                            optional second axis, of the same form
    small: {model.init_args.network.init_args.dim: 64}
  seeds: [0, 1, 2]                  default [0], which gives no interval
  metrics: [val/top1, val/loss]     default: what the workload monitors
  baseline: two_directions          optional: adds differences from it, seed by seed
  parallel: 1                       processes at once; they share the cores, and the GPUs

results, in runs/EXPERIMENT:
  table.csv table.md table.tex curves.png bars.png    each number with the runs behind it
  VARIANT-SIZE-sSEED/               the runs; configs/ and logs/ beside them, a file for each
  ablation.json                     the plan, and where each run stands

exit status: 0 all finished, 1 some failed or diverged, 2 refused before the first run,
130 interrupted.
"""


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba ablate`.

    Returns:
        Exit status.

    Raises:
        SuiteError: The file is wrong, or runs of another configuration are in the way.
    """
    given = _parser().parse_args(words)
    from bimamba.ablation.description import read_ablation

    ablation = read_ablation(given.file)
    if given.parallel is not None:
        if given.parallel < 1:
            raise SuiteError(
                expected="a number of processes", found=str(given.parallel), where="--parallel"
            )
        ablation = replace(ablation, parallel=given.parallel)
    # No window limits a file, and a table in narrow columns cannot be read.
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    console = Console(highlight=False, file=sys.stdout, width=width)
    from bimamba.ablation.plan import make_plan

    plan = make_plan(ablation, given.output)
    for note in plan.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    chosen = _matching(plan, given.only, "--only") if given.only else list(plan.runs)
    if given.dry_run:
        _show_plan(plan, console)
        return 0
    from bimamba.ablation.results import write_results
    from bimamba.ablation.state import look

    interrupted = False
    if not given.table_only:
        _set_aside(plan, _matching(plan, given.rerun, "--rerun") if given.rerun else [], console)
        _refuse_foreign(plan)
        interrupted = _execute(plan, chosen, console)
    results = write_results(plan)
    _conclude(plan, results, console, _again(given))
    if interrupted:
        return 130
    undone = not given.table_only and any(look(run).state != "finished" for run in chosen)
    return int(undone or bool(results.problems))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bimamba ablate",
        description=_DESCRIPTION,
        epilog=_FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE.yaml", help="the ablation")
    parser.add_argument(
        "--dry-run", action="store_true", help="show runs, changes and parameters; run nothing"
    )
    parser.add_argument("--only", metavar="PATTERN", help="start only such runs, as in 'vit-*'")
    parser.add_argument(
        "--rerun", metavar="PATTERN", help="move such runs aside and make them anew"
    )
    parser.add_argument("--parallel", type=int, metavar="N", help="processes at once")
    parser.add_argument(
        "--table-only", action="store_true", help="write table and figures of what has finished"
    )
    parser.add_argument("--output", metavar="DIR", help="folder above EXPERIMENT; default runs")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _matching(plan: "Plan", pattern: str, flag: str) -> "list[PlannedRun]":
    found = [run for run in plan.runs if fnmatch.fnmatchcase(run.name, pattern)]
    if not found:
        raise SuiteError(
            expected=f"a pattern of runs: {', '.join(run.name for run in plan.runs)}",
            found=pattern,
            where=flag,
            cure=f"did you mean '{pattern}*'?"
            if any(run.name.startswith(pattern) for run in plan.runs)
            else "choose among these; * stands for anything",
        )
    return found


def _show_plan(plan: "Plan", console: Console) -> None:
    from bimamba.ablation.merging import expand, leaves
    from bimamba.ablation.state import look

    table = Table(title=f"{plan.directory}, {len(plan.runs)} runs", title_justify="left")
    table.add_column("run")
    table.add_column("parameters", justify="right")
    table.add_column("state")
    table.add_column("changes", overflow="fold")
    ablation = plan.ablation
    for run in plan.runs:
        changes = {**ablation.sizes.get(run.size, {}), **ablation.variants[run.variant]}
        told = "\n".join(f"{key}: {value}" for key, value in leaves(expand(changes)))
        params = plan.params[run.group]
        table.add_row(
            run.name,
            short(params) if params else "not known yet",
            look(run).state,
            escape(told) if run.seed == ablation.seeds[0] else "",
        )
    console.print(table)


def _set_aside(plan: "Plan", runs: "list[PlannedRun]", console: Console) -> None:
    """Moves runs to a folder beside the experiment, where no table finds them; deletes nothing."""
    from bimamba.ablation.state import in_use

    for run in runs:
        if not run.directory.is_dir():
            continue
        if in_use(run.directory):
            raise SuiteError(
                expected="a run that nobody is working on",
                found="another process at work in it",
                where=str(run.directory),
                cure="wait for it or stop it first",
            )
        stamp = time.strftime("%Y%m%d-%H%M%S")
        place = plan.directory.with_name(f"{plan.directory.name}-replaced") / f"{run.name}-{stamp}"
        place.parent.mkdir(parents=True, exist_ok=True)
        run.directory.rename(place)
        run.log.unlink(missing_ok=True)
        console.print(f"{escape(run.name)} was moved to {escape(str(place))}", soft_wrap=True)


def _refuse_foreign(plan: "Plan") -> None:
    """Runs of the same name with another configuration would neither be skipped nor continued."""
    from bimamba.ablation.state import foreign_settings

    told = []
    for run in plan.runs:
        if differences := foreign_settings(run, plan.read):
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            told.append(f"{run.name}: {'; '.join(differences[:3])}{more}")
    if told:
        raise SuiteError(
            expected="runs made by this file, or none",
            found="runs of another configuration\n  " + "\n  ".join(told),
            where=str(plan.directory),
            cure="choose another `experiment`, or move them aside and make them anew with "
            "--rerun PATTERN ('*' for all)",
        )


def _execute(plan: "Plan", runs: "list[PlannedRun]", console: Console) -> bool:
    """Runs what is left; whether it was interrupted."""
    from bimamba.ablation.execution import Execution
    from bimamba.ablation.progress import Progress
    from bimamba.ablation.results import write_results

    parallel = plan.ablation.parallel
    plan.directory.mkdir(parents=True, exist_ok=True)
    with Progress(plan, parallel, console) as progress:
        execution = Execution(parallel, progress, lambda: write_results(plan, figures=False))
        execution.run(runs)
    return execution.interrupted


def _again(given: argparse.Namespace) -> str:
    """The command that goes on: what was moved aside once must not be so again."""
    words = ["bimamba", "ablate", given.file]
    for flag in ("output", "parallel"):
        if getattr(given, flag) is not None:
            words += [f"--{flag}", str(getattr(given, flag))]
    return shlex.join(words)


def _conclude(plan: "Plan", results: "Results", console: Console, again: str) -> None:
    from bimamba.ablation.state import look
    from bimamba.comparison.formats import to_rich

    if results.table is not None:
        console.print(to_rich(results.table))
    for file in results.files:
        console.print(f"  {escape(str(file))}", soft_wrap=True)
    for problem in results.problems:
        console.print(f"[red]problem:[/] {escape(problem)}", soft_wrap=True)
    left = [run.name for run in plan.runs if look(run).state in ("waiting", "cut", "failed")]
    if left:
        console.print(f"{len(left)} runs left; go on with: {escape(again)}", soft_wrap=True)
