"""The kernels for GPUs: interpreted on a CPU against the definition, and what is said without them.

All that is interpreted runs in one process per test: its Triton can do nothing else.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blocks.scan import gpu, scan_backends
from tests.conftest import ROOT

CASES = Path(__file__).with_name("interpreter_cases.py")
QUICK = (
    "one step", "both", "ragged", "bfloat16", "cross", "convolutions", "operators", "refusals",
)  # fmt: skip
REST = (
    "forward", "reverse", "both, one input", "float32", "float16", "plain", "groups",
    "cross, gated", "columns", "three paths", "channels first", "long", "wide",
)  # fmt: skip


def hold(*names: str) -> None:
    """Runs cases in a process of their own."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(CASES), *names], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("holds") == len(names)


@pytest.mark.timeout(300)
def test_interpreted_kernels_compute_what_the_definition_does() -> None:
    hold(*QUICK)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_interpreted_kernels_hold_in_every_shape_and_type() -> None:
    hold(*REST)


def test_the_table_says_why_the_kernels_do_not_serve() -> None:
    rows = {name: (usable, why) for name, usable, why in scan_backends("cpu")}
    assert rows["triton"] == (False, "the kernels are for CUDA and ROCm, not for cpu")


def test_an_old_gpu_is_refused_by_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    usable, why = gpu.available(torch.device("cuda"))
    assert not usable and why == "compute capability 7.5 is below 8.0"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr(gpu, "triton_state", lambda: (False, "triton does not work: missing"))
    assert gpu.available(torch.device("cuda")) == (False, "triton does not work: missing")
