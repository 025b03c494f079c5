"""The file of a sweep, read and checked before anything is built (bimamba sweep --help)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from bimamba.experiment_file import ExperimentFile, Overrides
from bimamba.sweeping.space import Dimension, read_dimension

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "hyperband", "none"]


@dataclass(frozen=True)
class Pruning:
    """When a trial is given up.

    Args:
        kind: `median`: worse than the median of earlier trials at the same validation; `hyperband`:
            most trials get few validations and the best of them more; `none`.
        startup_trials: Trials that are never given up, to compare with (median).
        warmup: Validations before the first decision.
    """

    kind: Pruner = "median"
    startup_trials: int = 3
    warmup: int = 1


@dataclass(frozen=True)
class Sweep:
    """What the file says.

    Args:
        path: The file.
        experiment: Folder of study and runs below the output folder.
        config: Base configurations, merged as `bimamba fit` merges them.
        space: What is searched, by key of the configuration.
        trials: How many to make; None for all of a grid.
        sampler: `tpe` learns where good values lie, `random` does not, `grid` tries every point.
        overrides: Changes for all.
        seeds: Runs of each trial, whose mean is its value; only the first is ever given up early.
        metric: What is searched by; None for what the workload monitors.
        mode: Whether another metric than that is to be small (`min`) or great (`max`).
        pruner: When a trial is given up.
        parallel: Trials at once in one process. More processes may work on one study.
        seed: Of the search itself.
    """

    path: Path
    experiment: str
    config: tuple[Path, ...]
    space: Mapping[str, Dimension]
    trials: int | None = None
    sampler: Sampler = "tpe"
    overrides: Overrides = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    pruner: Pruning = Pruning()
    parallel: int = 1
    seed: int = 0


def read_sweep(path: str | Path) -> Sweep:
    """Reads the file of a sweep.

    Args:
        path: A YAML file.

    Raises:
        SuiteError: No such file, no YAML, an unknown key, or a value of the wrong kind.
    """
    path = Path(path)
    file = ExperimentFile(path, "sweep", "space")
    content = file.load([f.name for f in fields(Sweep) if f.name != "path"])
    readers: dict[str, Callable[[Any], Any]] = {
        "experiment": file.experiment,
        "config": file.configs,
        "space": lambda value: _space(file, value),
        "trials": lambda value: file.count("trials", value, "a number of trials"),
        "sampler": lambda value: file.choice("sampler", value, ("tpe", "random", "grid")),
        "overrides": lambda value: file.overrides("overrides", value),
        "seeds": file.seeds,
        "metric": lambda value: file.text("metric", value),
        "mode": lambda value: file.choice("mode", value, ("min", "max")),
        "pruner": lambda value: _pruner(file, value),
        "parallel": lambda value: file.count("parallel", value, "a number of processes"),
        "seed": lambda value: file.count("seed", value, "a whole number", least=0),
    }
    given = {key: readers[key](value) for key, value in content.items()}
    sweep = Sweep(path, **{"experiment": path.stem, **given})
    if sweep.sampler != "grid" and sweep.trials is None:
        file.refuse("`trials`: how many to make", "a file without it", "write trials: 20")
    for key, dimension in sweep.space.items():
        if sweep.sampler == "grid" and dimension.grid() is None:
            cure = "write points: 5 beside the range, or list them under choice"
            file.refuse(f"`space.{key}`: values for the grid", "a range without points", cure)
    return sweep


def _space(file: ExperimentFile, value: Any) -> dict[str, Dimension]:
    if not isinstance(value, dict):
        cure = "write model.init_args.optimizer.lr: {log_range: [1e-4, 1e-2]}, for example"
        file.refuse("`space`: keys of the configuration", repr(value), cure)
    file.overrides("space", dict.fromkeys(map(str, value)))  # None that is decided elsewhere.
    return {str(key): read_dimension(file, str(key), given) for key, given in value.items()}


def _pruner(file: ExperimentFile, value: Any) -> Pruning:
    known = [f.name for f in fields(Pruning)]
    given = {"kind": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or not set(given) <= set(known):
        expected = f"`pruner`: median, hyperband or none, or keys {', '.join(known)}"
        file.refuse(expected, repr(value), "write pruner: median, for example")
    kind: Any = file.choice("pruner.kind", given.get("kind", "median"), Pruner.__args__)  # type: ignore[attr-defined]
    counts = {
        name: file.count(f"pruner.{name}", given[name], "a whole number", least=0)
        for name in ("startup_trials", "warmup")
        if name in given
    }
    return Pruning(kind, **counts)
