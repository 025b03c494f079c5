"""`bimamba sweep FILE.yaml`: searches a space of configurations.

A trial is one ordinary run of `bimamba fit` for each seed; the study is one file beside them, which
any number of processes share.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from blocks.errors import SuiteError

_FILE_WIDTH = 160
_DESCRIPTION = """\
Searches any keys of a configuration: at random, on a grid, or where earlier trials were good (TPE).
Hopeless trials are given up early, one that fails or diverges holds up nothing, and a search that
was killed goes on when the same command is given again. The same command on other machines, or a
second time on this one, joins the search. Everything is checked before the first trial.
"""
_FILE = """\
the file, for example configs/sweep/pose_rate.yaml:

  experiment: pose_rate             results go to runs/pose_rate; by default the file's name
  config: ../demo/pose.yaml         base configuration beside this file, or a list; later ones win
  overrides: {trainer.max_epochs: 5}
  space:                            keys as in the configuration, dotted
    model.init_args.optimizer.lr: {log_range: [3e-4, 1e-2]}
    model.init_args.network.init_args.depth: {range: [2, 6], step: 2}    whole ends: whole numbers
    model.init_args.network.init_args.dim: [32, 48, 64]                  or {choice: [...]}
  trials: 12
  sampler: tpe                      tpe, random, or grid (ranges then need `points`, or `step`)
  pruner: median                    median, hyperband, none, or {kind: ..., startup_trials: 3,
                                    warmup: 1}, counted in validations
  seeds: [0]                        several: the value of a trial is their mean
  metric: val/p1                    default: what the workload monitors; others need `mode`
  parallel: 1                       trials at once in one process; they share cores and GPUs
  seed: 0                           of the search itself

results, in runs/EXPERIMENT:
  trials.csv trials.md trials.tex   every trial, the best first, with its runs
  best.yaml                         the best configuration, for bimamba fit
  history.png parallel.png importance.png
  trialNNN-sSEED/                   the runs; configs/ and logs/ beside them, a file for each
  study.journal                     the study itself; sweep.json, the same for programs

exit status: 0 done, 1 no trial was completed, 2 refused before the first trial, 130 interrupted.
"""


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba sweep`.

    Returns:
        Exit status.

    Raises:
        SuiteError: The file is wrong, or the study of another search is in the way.
    """
    given = _parser().parse_args(words)
    from bimamba.sweeping.description import read_sweep

    sweep = read_sweep(given.file)
    for name in ("parallel", "trials"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise SuiteError(expected="a number of 1 or more", found=str(value), where=f"--{name}")
        if value is not None:
            sweep = replace(sweep, **{name: value})
    if given.export is None:
        _need_optuna()
    from bimamba.sweeping.plan import make_sweep_plan

    plan = make_sweep_plan(sweep, given.output)
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    console = Console(highlight=False, file=sys.stdout, width=width)
    if given.export is not None:
        from bimamba.sweeping.export import write_wandb

        path = write_wandb(plan, Path(given.export_to or f"{sweep.experiment}.wandb.yaml"))
        console.print(f"{path}\nstart it with: wandb sweep {path}", soft_wrap=True)
        return 0
    from bimamba.sweeping.execution import SweepExecution
    from bimamba.sweeping.progress import SweepProgress
    from bimamba.sweeping.results import ranked, write_sweep_results
    from bimamba.sweeping.study import Study

    study = Study(sweep, plan.directory, plan.metric, plan.mode, plan.settings)
    interrupted = False
    if not given.table_only:
        with SweepProgress(plan, study, console) as progress:
            execution = SweepExecution(
                plan, study, progress, lambda: write_sweep_results(plan, study, figures=False)
            )
            execution.run()
        interrupted = execution.interrupted
    files = write_sweep_results(plan, study)
    for file in files:
        console.print(f"  {escape(str(file))}", soft_wrap=True)
    trials = ranked(study)
    left = study.budget - sum(trial.state.is_finished() for trial in trials)
    if left > 0:
        again = shlex.join(["bimamba", "sweep", *words])
        elsewhere = "; another process is at work on some" if study.busy() else ""
        console.print(f"{left} trials left{elsewhere}; go on with: {escape(again)}", soft_wrap=True)
    if interrupted:
        return 130
    return int(not trials or trials[0].state.name != "COMPLETE")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bimamba sweep",
        description=_DESCRIPTION,
        epilog=_FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE.yaml", help="the search")
    parser.add_argument("--trials", type=int, metavar="N", help="trials to make, in all")
    parser.add_argument("--parallel", type=int, metavar="N", help="trials at once here")
    parser.add_argument(
        "--table-only", action="store_true", help="write table and pictures of what there is"
    )
    parser.add_argument(
        "--export", choices=("wandb",), help="write the search as a W&B sweep instead of making it"
    )
    parser.add_argument("--export-to", metavar="FILE", help="where to write that")
    parser.add_argument("--output", metavar="DIR", help="folder above EXPERIMENT; default runs")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _need_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise SuiteError(
            expected="the package optuna, which searches",
            found=str(error),
            where="bimamba sweep",
            cure="pip install 'bimamba-suite[sweep]'",
        ) from error
