"""Every run of an ablation with its whole configuration, accepted by the command's own parser.

Nothing is trained or written here. All wrong variants are told at once, before the first run.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bimamba.ablation.description import Ablation
from bimamba.ablation.merging import merge
from bimamba.comparison.variants import settings
from bimamba.configurations import count_parameters, parse, parse_base
from bimamba.run_files import RunFiles
from blocks.errors import SuiteError


@dataclass(frozen=True)
class PlannedRun:
    """One training run.

    Args:
        variant: Name of the variant.
        size: Name of the size; empty without that axis.
        seed: Its `seed_everything`.
        directory: Where its results go.
        config: The whole configuration, defaults included.
    """

    variant: str
    size: str
    seed: int
    directory: Path
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.directory.name

    @property
    def group(self) -> str:
        """What the runs of all seeds have in common: a row of the table."""
        return f"{self.variant} {self.size}".rstrip()

    @property
    def config_file(self) -> Path:
        """The configuration as a file, from which `bimamba fit` repeats or continues the run."""
        return self.directory.parent / "configs" / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.directory.parent / "logs" / f"{self.name}.txt"

    @property
    def epochs(self) -> int | None:
        """Epochs it will train; None where something else ends it."""
        epochs = self.config["trainer"]["max_epochs"]
        return epochs if isinstance(epochs, int) and epochs > 0 else None

    def settings(self) -> dict[str, str]:
        """What decides its results, by dotted key, as of a run that was made."""
        return config_settings(self.config)


@dataclass(frozen=True)
class Plan:
    """All runs of an ablation.

    Args:
        ablation: What was asked for.
        directory: Folder of the experiment.
        runs: In the order in which they start: all variants with the first seed come first, so
            that a table is complete early.
        params: Parameters of each group's network; None where it cannot be built without memory.
        read: Completes a configuration with the defaults of today; raises SuiteError for one that
            the command no longer accepts.
        notes: What to look at.
    """

    ablation: Ablation
    directory: Path
    runs: tuple[PlannedRun, ...]
    params: Mapping[str, int | None]
    read: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    def group(self, name: str) -> list[PlannedRun]:
        """Runs of a row of the table, in the order of the seeds."""
        return [run for run in self.runs if run.group == name]


def make_plan(ablation: Ablation, output: str | Path | None = None) -> Plan:
    """Merges, checks and names every run.

    Args:
        ablation: What the file says.
        output: Folder above that of the experiment; None takes the base configuration's.

    Raises:
        SuiteError: The base configuration or variants are wrong, or two runs share a name.
    """
    parser, base = parse_base(ablation.config)
    root = Path(output or base["trainer"]["default_root_dir"] or base["output"])
    directory = root / ablation.experiment
    base = merge(base, ablation.overrides)
    faults: dict[str, SuiteError] = {}
    runs: list[PlannedRun] = []
    params: dict[str, int | None] = {}
    for size, size_changes in (ablation.sizes or {"": {}}).items():
        for variant, changes in ablation.variants.items():
            group = f"{variant} {size}".rstrip()
            try:
                config = parse(parser, merge(merge(base, size_changes), changes))
                params[group] = count_parameters(config["model"])
            except SuiteError as error:
                faults[group] = error
                continue
            for seed in ablation.seeds:
                name = "-".join((*group.split(), f"s{seed}"))
                own = {
                    "seed_everything": seed,
                    "experiment": ablation.experiment,
                    "run_name": name,
                    "output": str(root),
                    "resume": "auto",
                }
                runs.append(PlannedRun(variant, size, seed, directory / name, {**config, **own}))
    if faults:
        raise _wrong(ablation, faults)
    _check_names(ablation, runs)
    runs.sort(key=lambda run: ablation.seeds.index(run.seed))
    notes = tuple(_notes(ablation, runs))
    return Plan(ablation, directory, tuple(runs), params, partial(parse, parser), notes)


def config_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """What decides the results of a run, by dotted key: all but names, places and displays.

    Args:
        config: A whole configuration.
    """
    return settings(RunFiles(Path(), {}, config, "", {}, [], []))


def _wrong(ablation: Ablation, faults: Mapping[str, SuiteError]) -> SuiteError:
    """All faults as one; a fault of every variant is one of the common part, and told once."""
    texts = {group: str(error) for group, error in faults.items()}
    everywhere = len(texts) == len(ablation.variants) * max(len(ablation.sizes), 1)
    if everywhere and len({*texts.values()}) == 1:
        texts = {"every variant": next(iter(texts.values()))}
    told = [f"{group}:\n    " + text.replace("\n", "\n    ") for group, text in texts.items()]
    return SuiteError(
        expected="variants that bimamba fit accepts",
        found=f"{len(faults)} that it does not\n  " + "\n  ".join(told),
        where=str(ablation.path),
        cure="mend these; nothing has been run",
    )


def _check_names(ablation: Ablation, runs: list[PlannedRun]) -> None:
    twice = [name for name, count in Counter(run.name for run in runs).items() if count > 1]
    if twice:
        raise SuiteError(
            expected="variants and sizes that give each run a name of its own",
            found=f"two runs called {twice[0]}",
            where=str(ablation.path),
            cure="rename a variant or a size",
        )


def _notes(ablation: Ablation, runs: list[PlannedRun]) -> list[str]:
    seen: dict[str, str] = {}
    notes = []
    for run_ in runs:
        if run_.seed != ablation.seeds[0]:
            continue
        same = seen.setdefault(str(run_.settings()), run_.group)
        if same != run_.group:
            notes.append(f"{run_.group} and {same} are the same configuration")
    return notes
