"""Two processes share a real search; one is killed, and its trial goes on in the other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bimamba.run_files import read_run
from tests.bimamba.ablation.test_killed_ablation import children
from tests.bimamba.ablation.tiny import TEXT
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SPACE = "space: {model.init_args.optimizer.lr: {log_range: [1e-3, 1e-2]}}\ntrials: 4\n"


def start(path: Path, output: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("PL_GLOBAL_SEED", "BIMAMBA_RUN_DIRECTORY", "LOCAL_RANK"):
        environment.pop(name, None)
    words = ["sweep", str(path), "--output", str(output)]
    return subprocess.Popen([sys.executable, "-m", "bimamba", *words], cwd=ROOT, env=environment)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:1] not in ("", "Z")


def test_a_killed_worker_loses_no_trial(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(TEXT.replace("seeds: [0, 1]\n", "").replace("epochs: 2", "epochs: 6") + SPACE)
    folder = tmp_path / "search"
    killed = start(path, tmp_path)
    last = folder / "trial000-s0" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    other = start(path, tmp_path)
    runs = children(killed.pid)
    assert runs, "it was killed in the middle"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60
    while any(map(alive, runs)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, runs)), "a run ends with the search that started it"
    assert other.wait(timeout=400) == 0
    trials = json.loads((folder / "sweep.json").read_text())["trials"]
    assert [trial["trial"] for trial in trials] == [0, 1, 2, 3]
    assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
    assert trials[0]["state"] == "complete"
    validations = read_run(folder / "trial000-s0").curves["val/top1"]
    assert len(validations) == len({point.step for point in validations}) == 6, "none came twice"
