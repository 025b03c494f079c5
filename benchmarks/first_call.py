"""How long the first step of a fresh process takes: without any compiled code on disk, and with it.

Run as `python -m benchmarks.first_call SUBJECT DEVICE DTYPE THREADS` it takes the step itself and
prints the seconds as JSON. Importing is timed apart: torch, the suite, and numba where it is there.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.settings import Settings

_LONGEST = 300.0


def measure_first_call(subject: str, settings: "Settings") -> dict[str, Any]:
    """Starts two processes with one cache folder, empty at first.

    Args:
        subject: `scan` or `mixer`.
        settings: How to measure.

    Returns:
        `cold` and `warm`, each with `import_seconds`, `first_seconds` and `second_seconds` (the
        same step again), or with `skipped` and the reason.
    """
    import torch

    if settings.quick:
        return dict.fromkeys(("cold", "warm"), {"skipped": "--quick starts no processes"})
    words = [subject, settings.device, settings.dtype, str(torch.get_num_threads())]
    with tempfile.TemporaryDirectory(prefix="bimamba-bench-") as cache:
        return {state: _in_new_process(words, cache) for state in ("cold", "warm")}


def _in_new_process(words: list[str], cache: str) -> dict[str, Any]:
    root = str(Path(__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"BIMAMBA_CACHE": cache, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.first_call", *words],
            env=environment, capture_output=True, text=True, check=True, timeout=_LONGEST,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"skipped": f"takes longer than {_LONGEST:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"skipped": (error.stderr.strip().splitlines() or ["no message"])[-1]}
    return found


def _take_steps(subject: str, device: str, dtype: str, threads: str) -> dict[str, float]:
    start = time.perf_counter()
    import torch

    import blocks.bimamba
    import blocks.scan  # noqa: F401

    with contextlib.suppress(ImportError):  # The suite runs without it.
        import numba  # noqa: F401
    imported = time.perf_counter() - start
    torch.set_num_threads(int(threads))
    step = {"scan": _scan_step, "mixer": _mixer_step}[subject](device, dtype)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return {"import_seconds": imported, "first_seconds": seconds[0], "second_seconds": seconds[1]}


def _scan_step(device: str, dtype: str) -> Callable[[], object]:
    import torch

    from benchmarks.scan import SHAPES, scan_inputs
    from benchmarks.scan_peers import ours
    from benchmarks.settings import DTYPES

    inputs = scan_inputs(SHAPES[0], DTYPES[dtype], device)
    return lambda: torch.autograd.backward(ours(*inputs).sum())


def _mixer_step(device: str, dtype: str) -> Callable[[], object]:
    import torch

    from benchmarks.settings import DTYPES
    from blocks.bimamba import BiMamba

    mixer, x = BiMamba(192).to(device), torch.randn(2, 197, 192, device=device)

    def step() -> None:
        low = dtype != "float32"
        with torch.autocast(torch.device(device).type, DTYPES[dtype], enabled=low):
            y = mixer(x)
        torch.autograd.backward(y.sum())

    return step


if __name__ == "__main__":
    print(json.dumps(_take_steps(*sys.argv[1:])))
