"""A sweep with its base configuration: every key exists, and every value is one it may take."""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimamba.ablation.merging import merge
from bimamba.ablation.plan import PlannedRun, config_settings
from bimamba.configurations import count_parameters, parse, parse_base
from bimamba.experiment_file import nearest
from bimamba.sweeping.description import Sweep
from bimamba.sweeping.space import dotted
from blocks.errors import SuiteError
from datamodules.info import digest


@dataclass(frozen=True)
class SweepPlan:
    """What every trial starts from.

    Args:
        sweep: What the file says.
        directory: Folder of the experiment.
        base: Merged configuration, overrides and defaults included.
        parser: That of `bimamba fit`.
        metric: What is searched by.
        mode: `min` or `max`.
    """

    sweep: Sweep
    directory: Path
    base: Mapping[str, Any]
    parser: Any
    metric: str
    mode: str

    @property
    def settings(self) -> str:
        """A few letters for all that decides results and is not searched."""
        found = config_settings(self.base)
        searched = tuple(self.sweep.space)
        return digest(f"{k}={v}" for k, v in sorted(found.items()) if not k.startswith(searched))

    def runs(self, number: int, params: Mapping[str, Any]) -> list[PlannedRun]:
        """The runs of a trial, one for each seed.

        Args:
            number: Of the trial.
            params: What it tries, by key.

        Raises:
            SuiteError: No network can be built from it.
        """
        config = parse(self.parser, merge(self.base, params))
        count_parameters(config["model"])
        runs = []
        for seed in self.sweep.seeds:
            name = f"trial{number:03d}-s{seed}"
            own = {
                "seed_everything": seed,
                "experiment": self.sweep.experiment,
                "run_name": name,
                "output": str(self.directory.parent),
                "resume": "auto",
            }
            runs.append(
                PlannedRun(f"trial{number:03d}", "", seed, self.directory / name, {**config, **own})
            )
        return runs


def make_sweep_plan(sweep: Sweep, output: str | Path | None = None) -> SweepPlan:
    """Merges and checks.

    Args:
        sweep: What the file says.
        output: Folder above that of the experiment; None takes the base configuration's.

    Raises:
        SuiteError: A key does not exist, a value is refused, or the metric has no direction.
    """
    parser, base = parse_base(sweep.config)
    root = Path(output or base["trainer"]["default_root_dir"] or base["output"])
    base = parse(parser, merge(base, sweep.overrides))
    known = dotted(base)
    faults = []
    for key, dimension in sweep.space.items():
        if key not in known:
            faults.append(f"{key} is no key of the configuration: {nearest(key, known[:4000])}")
            continue
        for value in dimension.ends():
            try:
                parse(parser, merge(base, {key: value}))
            except SuiteError as error:
                faults.append(f"{key}: {value} is refused: {' '.join(str(error).split())}")
    if faults:
        raise SuiteError(
            expected="a space of keys and values that bimamba fit accepts",
            found="one that it does not\n  " + "\n  ".join(faults),
            where=str(sweep.path),
            cure="mend these; nothing has been run",
        )
    count_parameters(base["model"])
    workload = pkgutil.resolve_name(":".join(base["model"]["class_path"].rsplit(".", 1)))
    metric, mode = sweep.metric or workload.monitor, sweep.mode or workload.mode
    if sweep.mode is None and metric != workload.monitor:
        raise SuiteError(
            expected=f"`mode`: min or max beside the metric {metric}",
            found="a file without it",
            where=str(sweep.path),
            cure=f"write it; {workload.__name__} knows the direction of {workload.monitor} alone",
        )
    return SweepPlan(sweep, root / sweep.experiment, base, parser, metric, mode)
