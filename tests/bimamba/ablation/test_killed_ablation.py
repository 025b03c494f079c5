"""A real ablation, killed in the middle, ends with the table of one that was left alone."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bimamba.ablation.tiny import TEXT, TWO
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
# Minutes of the clock and bytes of the process are no results.
MEASURED = ("samples_per_second", "peak_memory", "seconds")


def start(path: Path, output: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("PL_GLOBAL_SEED", "BIMAMBA_RUN_DIRECTORY", "LOCAL_RANK"):
        environment.pop(name, None)
    words = ["ablate", str(path), "--output", str(output), "--parallel", "2"]
    return subprocess.Popen([sys.executable, "-m", "bimamba", *words], cwd=ROOT, env=environment)


def results(output: Path) -> list[dict[str, str]]:
    with (output / "tiny" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in rows]


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def test_a_killed_ablation_ends_with_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT.replace("max_epochs: 2", "max_epochs: 6") + TWO + "baseline: two\n")
    assert start(path, tmp_path / "calm").wait(timeout=240) == 0

    killed = tmp_path / "killed"
    process = start(path, killed)
    last = killed / "tiny" / "two-s0" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    runs = children(process.pid)
    assert runs, "it was killed in the middle"
    for pid in (process.pid, *runs):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "tiny" / "one-s1").exists()

    assert start(path, killed).wait(timeout=240) == 0
    assert results(killed) == results(tmp_path / "calm")
    assert all(row["val/top1_n"] == "2" for row in results(killed))
