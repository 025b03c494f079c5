"""A sweep as the file of a W&B sweep, whose agents call `bimamba fit`."""

from pathlib import Path
from typing import Any

import yaml

from bimamba.ablation.merging import expand
from bimamba.sweeping.plan import SweepPlan
from blocks.files import write_text

_METHODS = {"tpe": "bayes", "random": "random", "grid": "grid"}


def write_wandb(plan: SweepPlan, path: Path) -> Path:
    """Writes the file.

    Args:
        plan: The search.
        path: Where to.
    """
    sweep = plan.sweep
    command = ["${env}", "bimamba", "fit"]
    for config in sweep.config:
        command += ["--config", str(config)]
    command += [f"--{key}={_word(value)}" for key, value in _flat(expand(sweep.overrides))]
    command += ["--trainer.logger=WandbLogger", f"--experiment={sweep.experiment}", "${args}"]
    parameters: dict[str, Any] = {}
    for key, dimension in sweep.space.items():
        grid = dimension.grid() if sweep.sampler == "grid" else None
        parameters[key] = {"values": grid} if grid else dimension.wandb()
    if len(sweep.seeds) > 1:
        parameters["seed_everything"] = {"values": list(sweep.seeds)}
    content: dict[str, Any] = {
        "name": sweep.experiment,
        "method": _METHODS[sweep.sampler],
        "metric": {"name": plan.metric, "goal": "minimize" if plan.mode == "min" else "maximize"},
        "parameters": parameters,
        "command": command,
    }
    if sweep.trials is not None:
        content["run_cap"] = sweep.trials * len(sweep.seeds)
    if sweep.pruner.kind != "none":
        content["early_terminate"] = {"type": "hyperband", "min_iter": max(sweep.pruner.warmup, 1)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(path, f"# {sweep.experiment}: written by bimamba sweep --export wandb.\n{text}")
    return path


def _flat(changes: Any, above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in changes.items():
        if isinstance(value, dict) and value and "class_path" not in value:
            found += _flat(value, f"{above}{key}.")
        else:
            found.append((f"{above}{key}", value))
    return found


def _word(value: Any) -> str:
    """A value as a word of the command line, which reads YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n...\n").strip()
