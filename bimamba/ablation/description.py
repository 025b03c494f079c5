"""The file of an ablation, read and checked before anything is built (bimamba ablate --help)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bimamba.experiment_file import ExperimentFile, Overrides, nearest


@dataclass(frozen=True)
class Ablation:
    """What the file says.

    Args:
        path: The file.
        experiment: Folder of the runs below the output folder.
        config: Base configurations, merged as `bimamba fit` merges them.
        variants: Changes by the name of the variant.
        overrides: Changes for all.
        sizes: Changes by the name of the size; empty without that axis.
        seeds: One run each.
        metrics: Columns of the table before the costs; None takes what the workload monitors.
        baseline: Variant that the others are compared with, over equal seeds.
        parallel: Processes at once.
    """

    path: Path
    experiment: str
    config: tuple[Path, ...]
    variants: Mapping[str, Overrides]
    overrides: Overrides = field(default_factory=dict)
    sizes: Mapping[str, Overrides] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] | None = None
    baseline: str | None = None
    parallel: int = 1


def read_ablation(path: str | Path) -> Ablation:
    """Reads the file of an ablation.

    Args:
        path: A YAML file.

    Raises:
        SuiteError: No such file, no YAML, an unknown key, or a value of the wrong kind.
    """
    path = Path(path)
    file = ExperimentFile(path, "ablate", "variants")
    content = file.load([f.name for f in fields(Ablation) if f.name != "path"])
    readers: dict[str, Callable[[Any], Any]] = {
        "experiment": file.experiment,
        "config": file.configs,
        "variants": lambda value: file.named("variants", value),
        "overrides": lambda value: file.overrides("overrides", value),
        "sizes": lambda value: file.named("sizes", value),
        "seeds": file.seeds,
        "metrics": lambda value: file.texts("metrics", value),
        "baseline": lambda value: file.text("baseline", value),
        "parallel": lambda value: file.count("parallel", value, "a number of processes"),
    }
    given = {key: readers[key](value) for key, value in content.items()}
    ablation = Ablation(path, **{"experiment": path.stem, **given})
    if ablation.baseline is not None and ablation.baseline not in ablation.variants:
        cure = nearest(ablation.baseline, ablation.variants)
        file.refuse("`baseline`: the name of a variant", ablation.baseline, cure)
    return ablation
