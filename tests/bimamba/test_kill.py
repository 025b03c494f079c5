"""Runs killed at random moments end with the weights of one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.demo import NETWORK, TINY

pytestmark = pytest.mark.slow
SCRIPT = str(Path(sys.executable).parent / "bimamba")
EPOCHS = 8
# Runs with two kills each; more of them on a day when there is time.
REPETITIONS = int(os.environ.get("BIMAMBA_KILLED_RUNS", "5"))
WORDS = (
    *("fit", *TINY, "--run_name", "r", "--resume", "auto", f"{NETWORK}.drop_path", "0.2"),
    *("--trainer.max_epochs", str(EPOCHS), "--trainer.limit_train_batches", "15"),
    *("--save_every_minutes", "0.002", "--trainer.logger", "true"),
    *("--trainer.callbacks+=EMA", "--trainer.callbacks.decay", "0.9"),
)


def start(output: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("PL_GLOBAL_SEED", "BIMAMBA_RUN_DIRECTORY", "LOCAL_RANK"):
        environment.pop(name, None)
    return subprocess.Popen(
        [SCRIPT, *WORDS, "--output", str(output), *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(output: Path, *words: str) -> None:
    process = start(output, *words)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]


def content(output: Path) -> dict[str, object]:
    path = output / "demo_vision" / "r" / "checkpoints" / "last.ckpt"
    loaded: dict[str, object] = torch.load(path, weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Last checkpoint of the run that was left alone."""
    output = tmp_path_factory.mktemp("whole")
    finish(output)
    return content(output)


@pytest.mark.parametrize("seed", range(REPETITIONS))
def test_a_run_killed_at_random_moments_ends_with_equal_weights(
    tmp_path: Path, whole: dict[str, object], seed: int
) -> None:
    draw, kills = random.Random(seed), 0
    folder = tmp_path / "demo_vision" / "r"
    for attempt in range(2):
        process = start(tmp_path, "--data.init_args.num_workers", str((seed + attempt) % 2))
        # The first words of a run take seconds of imports: wait for its first sign, then strike.
        began = time.time()
        while process.poll() is None and time.time() - began < 60:
            summary = folder / "summary.json"
            if summary.is_file() and summary.stat().st_mtime > began:
                break
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, 1.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL if (seed + attempt) % 3 else signal.SIGTERM)
            kills += 1
        process.communicate(timeout=60)
        metrics = folder / "summary.json"
        if metrics.is_file():
            json.loads(metrics.read_text())
        assert not list(folder.rglob("*.tmp"))
    assert kills
    finish(tmp_path, "--data.init_args.num_workers", "1")
    resumed = content(tmp_path)
    assert resumed["global_step"] == whole["global_step"] == EPOCHS * 15
    for entry in ("state_dict", "current_model_state"):
        one, other = whole[entry], resumed[entry]
        assert isinstance(one, dict) and isinstance(other, dict)
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), f"{entry} {name}"
    assert whole["ema_updates"] == resumed["ema_updates"]


def test_two_processes_go_on_as_one_with_the_same_samples(tmp_path: Path) -> None:
    calm = (f"{NETWORK}.drop_path", "0.0", "--trainer.max_epochs", "2")
    batch = "--data.init_args.batch_size"
    two = (*calm, "--trainer.strategy", "ddp", "--trainer.devices", "2", batch, "16")
    whole, half = tmp_path / "whole", tmp_path / "half"
    finish(whole, *two)
    process = start(half, *two)
    last = half / "demo_vision" / "r" / "checkpoints" / "last.ckpt"
    while process.poll() is None and not last.exists():
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    finish(half, *calm, batch, "32")
    assert content(half)["global_step"] == content(whole)["global_step"] == 30
    one, other = content(whole)["current_model_state"], content(half)["current_model_state"]
    assert isinstance(one, dict) and isinstance(other, dict)
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=1e-4), name
