"""Interleaved timing: each round runs every contender once, so that they share the weather."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from blocks.files import write_json

RESULTS = Path(__file__).parent / "results"


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, dict[str, float]]:
    """Times contenders in turns.

    Args:
        contenders: Name to function; the first one is the reference of the ratios.
        rounds: How often each runs, after one run that does not count.

    Returns:
        For each contender its median seconds, and the median over rounds of its time divided by
        the reference's in the same round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for function in contenders.values():
        function()
    for _ in range(rounds):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    reference = next(iter(seconds.values()))
    return {
        name: {
            "median_seconds": statistics.median(times),
            "median_ratio": statistics.median(
                mine / first for mine, first in zip(times, reference, strict=True)
            ),
        }
        for name, times in seconds.items()
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def save(name: str, results: object) -> Path:
    """Writes `results/NAME.json` with the machine beside the figures."""
    path = RESULTS / f"{name}.json"
    write_json(path, {"machine": machine(), "results": results})
    print(json.dumps(results, indent=2))
    print(f"written to {path}")
    return path


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
