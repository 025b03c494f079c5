"""A tiny ablation, its plan, and a stand-in for `bimamba fit` that takes a tenth of a second."""

import sys
from pathlib import Path

import pytest

from bimamba.ablation import execution, workers
from bimamba.ablation.description import read_ablation
from bimamba.ablation.plan import Plan, make_plan
from tests.conftest import ROOT

TEXT = f"""\
# Tiny.
config: {ROOT}/configs/demo/vision.yaml
overrides:
  model.init_args.network.init_args: {{depth: 1, dim: 16, d_state: 2, img_size: 16}}
  data.init_args: {{img_size: 16, batch_size: 8}}
  trainer: {{limit_train_batches: 3, limit_val_batches: 2, max_epochs: 2}}
seeds: [0, 1]
"""
TWO = "variants: {two: {}, one: {model.init_args.network.init_args.bimamba_type: none}}\n"

# Writes what a run would, by the learning rate: 7 diverges, 11 fails, 13 is killed, 17 lasts, and
# 19 lasts and is bad.
_STAND_IN = """
import fcntl, json, os, signal, sys, time
import yaml
with open(sys.argv[2]) as file:
    config = yaml.safe_load(file)
folder = os.path.join(config["output"], config["experiment"], config["run_name"])
os.makedirs(folder, exist_ok=True)
handle = os.open(folder, os.O_RDONLY)
fcntl.flock(handle, fcntl.LOCK_EX)
lr = config["model"]["init_args"]["optimizer"]["lr"]
epochs, seed = config["trainer"]["max_epochs"], config["seed_everything"]
def write(status, top1, **more):
    metrics = {"val/top1": top1, "val/loss": None if top1 is None else 1 - top1 / 100}
    summary = {
        "run": config["run_name"], "experiment": config["experiment"], "status": status,
        "workload": "ImageClassification", "seed": seed, "monitor": "val/top1", "mode": "max",
        "units": {"top1": "%"}, "metrics": {"best": metrics, "last": metrics, "raw": {}},
        "params": 1000, "macs": 500, "macs_counter": "hand", "seconds": 2.0, "epochs": epochs,
        "samples_per_second": 10.0 + seed, "peak_memory": 2**20, "protocol": "p",
        "data": {"root": "here", "synthetic": True, "hash": "h"}, **more,
    }
    with open(os.path.join(folder, "summary.json"), "w") as file:
        json.dump(summary, file)
with open(os.path.join(folder, "config.yaml"), "w") as file:
    yaml.safe_dump(config, file)
with open(os.path.join(folder, "metrics.csv"), "w") as file:
    low, high = (1, 2) if lr == 19 else (10, 20)
    file.write(f"step,epoch,val/top1\\n1,0,{low}\\n2,1,{high}\\n")
write("running", 1.0)
if lr == 11:
    write("failed", 1.0)
    sys.exit("bimamba: error\\nexpected: room\\nfound: none at all\\nwhere: here")
if lr == 13:
    os.kill(os.getpid(), signal.SIGKILL)
if lr in (17, 19):
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        write("interrupted", 1.0)
        sys.exit("bimamba: error\\ninterrupted")
write("finished", None if lr == 7 else 50 + lr + 2 * seed)
"""


def plan(folder: Path, text: str = TWO) -> Plan:
    """The plan of TEXT and `text`, with results below `folder`."""
    path = folder / "tiny.yaml"
    path.write_text(TEXT + text)
    return make_plan(read_ablation(path), folder / "runs")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the stand-in in the place of `bimamba fit`."""
    script = folder / "stand_in.py"
    script.write_text(_STAND_IN)
    monkeypatch.setattr(execution, "_POLL", 0.02)
    monkeypatch.setattr(workers, "_FIT", (sys.executable, str(script)))
