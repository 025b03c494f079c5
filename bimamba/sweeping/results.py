"""From a study to a table of its trials, its best configuration as a file, and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bimamba.ablation.merging import merge
from bimamba.comparison.formats import write_table
from bimamba.comparison.table import Cell, Column, Row, Table
from bimamba.run_files import read_run
from bimamba.sweeping.plan import SweepPlan
from bimamba.sweeping.space import short_names, text_of
from bimamba.sweeping.study import REASON, Study
from blocks.errors import SuiteError
from blocks.files import write_json, write_text

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SCHEMA = 1
ENDINGS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
_OF_A_RUN = ("experiment", "run_name", "output", "resume", "seed_everything", "config", "ckpt_path")


def ranked(study: Study) -> "list[FrozenTrial]":
    """Trials, the best first; those without a value last, in the order of their numbers.

    Args:
        study: The study.
    """
    sign = 1 if study.optuna.direction.name == "MINIMIZE" else -1

    def key(trial: "FrozenTrial") -> tuple[bool, float, int]:
        complete = trial.state.name == "COMPLETE" and trial.value is not None
        return not complete, sign * (trial.value or 0.0) if complete else 0.0, trial.number

    return sorted(study.trials, key=key)


def write_sweep_results(plan: SweepPlan, study: Study, *, figures: bool = True) -> list[Path]:
    """Writes `trials.csv`, `.md`, `.tex`, `best.yaml`, `sweep.json` and pictures.

    Args:
        plan: What every trial starts from.
        study: What has been tried.
        figures: Draw them too, which takes some seconds.

    Returns:
        The files.
    """
    trials = ranked(study)
    files = write_table(trials_table(plan, trials), plan.directory, "trials")
    files.append(_record(plan, study, trials))
    if trials and trials[0].state.name == "COMPLETE":
        files.append(write_best(plan, trials[0]))
        if figures:
            from bimamba.sweeping.figures import draw_study

            files += draw_study(plan, study)
    return files


def trials_table(plan: SweepPlan, trials: "Sequence[FrozenTrial]") -> Table:
    """A row for each trial with what it tried, what it reached, and its runs.

    Args:
        plan: What every trial starts from.
        trials: In the order of the rows.
    """
    space = plan.sweep.space
    columns = [Column(plan.metric, plan.metric, "", "min" if plan.mode == "min" else "max")]
    columns += [Column(k, name) for k, name in zip(space, short_names(space), strict=True)]
    columns += [Column("state", "state"), Column("validations", "validations"), Column(REASON, "")]
    rows = []
    for trial in trials:
        runs = tuple(
            f"{plan.sweep.experiment}/trial{trial.number:03d}-s{seed}" for seed in plan.sweep.seeds
        )
        cells: dict[str, Any] = {key: text_of(trial.params.get(key, "")) for key in space}
        cells["state"] = ENDINGS.get(trial.state.name, "running")
        cells["validations"] = str(len(trial.intermediate_values))
        cells[REASON] = str(trial.user_attrs.get(REASON, ""))[:200]
        if trial.value is not None and trial.state.name == "COMPLETE":
            cells[plan.metric] = Cell(trial.value, values=(trial.value,))
        made = tuple(run for run in runs if (plan.directory.parent / run).is_dir())
        rows.append(Row(f"trial{trial.number:03d}", cells, made))
    complete = sum(trial.state.name == "COMPLETE" for trial in trials)
    title = f"{plan.sweep.experiment}: {complete} of {len(trials)} trials complete"
    seeds = len(plan.sweep.seeds)
    notes = [f"The value of a trial is the best {plan.metric} of its run."]
    if seeds > 1:
        notes = [f"The value of a trial is the mean over {seeds} seeds of the best {plan.metric}."]
    notes.append("The best of many trials flatters itself: repeat it with other seeds.")
    return Table(title, tuple(columns), tuple(rows), tuple(notes))


def write_best(plan: SweepPlan, trial: "FrozenTrial") -> Path:
    """`best.yaml`: a configuration of `bimamba fit` with what differs from the defaults.

    Args:
        plan: What every trial starts from.
        trial: The best one.
    """
    run = plan.directory / f"trial{trial.number:03d}-s{plan.sweep.seeds[0]}"
    try:
        content = yaml.safe_load(read_run(run).changes)
    except SuiteError:
        content = None
    if not content:  # Its directory was deleted; the study knows what it tried.
        content = merge(
            plan.base, {k: d.value(trial.params[k]) for k, d in plan.sweep.space.items()}
        )
    content = {key: value for key, value in content.items() if key not in _OF_A_RUN}
    content.get("trainer", {}).pop("default_root_dir", None)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path = plan.directory / "best.yaml"
    write_text(
        path,
        f"# The best of {len(plan.sweep.space)} searched keys in {plan.sweep.experiment}: "
        f"{plan.metric} {trial.value:.6g}, trial{trial.number:03d}.\n"
        f"experiment: {plan.sweep.experiment}_best\n{text}",
    )
    return path


def _record(plan: SweepPlan, study: Study, trials: "Sequence[FrozenTrial]") -> Path:
    """`sweep.json`: the search and its trials, for programs."""
    path = plan.directory / "sweep.json"
    write_json(
        path,
        {
            "schema": SCHEMA,
            "experiment": plan.sweep.experiment,
            "file": str(plan.sweep.path),
            "config": [str(file) for file in plan.sweep.config],
            "metric": plan.metric,
            "mode": plan.mode,
            "sampler": plan.sweep.sampler,
            "pruner": plan.sweep.pruner.kind,
            "budget": study.budget,
            "trials": [
                {
                    "trial": trial.number,
                    "state": ENDINGS.get(trial.state.name, "running"),
                    "value": trial.value if trial.state.name == "COMPLETE" else None,
                    "params": trial.params,
                    "validations": list(trial.intermediate_values.values()),
                    "reason": trial.user_attrs.get(REASON),
                    "runs": [
                        f"{plan.sweep.experiment}/trial{trial.number:03d}-s{seed}"
                        for seed in plan.sweep.seeds
                    ],
                }
                for trial in sorted(trials, key=lambda trial: trial.number)
            ],
        },
    )
    return path
