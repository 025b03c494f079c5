"""Run directories in the format of `bimamba fit`, written in a millisecond.

`tests/bimamba/test_compare.py` holds them against a real run, so that the format cannot drift away.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SUMMARY: dict[str, Any] = {
    "schema": 1,
    "workload": "ImageClassification",
    "status": "finished",
    "seed": 0,
    "monitor": "val/top1",
    "mode": "max",
    "units": {"top1": "%"},
    "best_step": 20,
    "epochs": 2,
    "steps": 20,
    "params": 154826,
    "trainable_params": 154826,
    "macs": 5517952,
    "macs_counter": "a counter",
    "seconds": 100.0,
    "samples_per_second": 250.0,
    "joules": None,
    "joules_counter": "",
    "device": "a processor, 2 threads",
    "processes": 1,
    "peak_memory": 2**30,
    "protocol": "355 images, centre crop",
    "data": {"root": "/data/digits", "synthetic": True, "hash": "ac790297cd68"},
    "versions": {"python": "3.11.7", "torch": "2.15.0"},
    "git": {"rev": "8ae5de7d02a9", "dirty": False},
}
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 2, "limit_val_batches": None, "logger": None},
    "model": {
        "class_path": "lightning_modules.vision.ImageClassification",
        "init_args": {
            "network": {
                "class_path": "lightning_modules.vision.VisionMamba",
                "init_args": {"depth": 4, "dim": 64},
            },
            "optimizer": {"name": "adamw", "lr": 0.002},
        },
    },
    "data": {
        "class_path": "datamodules.vision.ImageNetDataModule",
        "init_args": {"root": None, "batch_size": 32},
    },
    "experiment": "digits",
    "run_name": None,
    "output": "runs",
}


def write_run(
    root: Path,
    name: str,
    top1: float | None = 97.0,
    *,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    curve: Sequence[float] = (50.0, 97.0),
    checkpoints: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """Writes a run directory.

    Args:
        root: Folder above `experiment/run`.
        name: `experiment/run`.
        top1: Best and last `val/top1`; None for a run that diverged before its first best.
        seed: Seed of the run.
        config: Values by dotted key that differ from `CONFIG`.
        curve: `val/top1` every ten steps.
        checkpoints: Names of files to write under `checkpoints/`, a thousand bytes each.
        **changes: Entries of the summary that differ from `SUMMARY`.
    """
    directory = root / name
    directory.mkdir(parents=True)
    experiment, run = name.split("/")
    loss = None if top1 is None else round(1 - top1 / 100, 4)
    metrics = {"val/top1": top1, "val/loss": loss}
    best = {} if top1 is None else {**metrics, "lr/decay": 0.001, "train/loss_step": 0.5}
    summary = copy.deepcopy(SUMMARY) | {
        "experiment": experiment,
        "run": run,
        "seed": seed,
        "metrics": {"best": best, "last": {**metrics, "train/loss": 0.4}, "raw": {}},
        **changes,
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    merged = copy.deepcopy(CONFIG) | {"seed_everything": seed, "experiment": experiment}
    for key, value in (config or {}).items():
        *above, last = key.split(".")
        place = merged
        for word in above:
            place = place[word]
        place[last] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(merged))
    rows = [f"0,{10 * i + 9},{value}," for i, value in enumerate(curve)]
    (directory / "metrics.csv").write_text("\n".join(["epoch,step,val/top1,val/loss", *rows, ""]))
    for file in checkpoints:
        (directory / "checkpoints").mkdir(exist_ok=True)
        (directory / "checkpoints" / file).write_bytes(b"x" * 1000)
    return directory
