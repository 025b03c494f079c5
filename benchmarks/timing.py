"""Interleaved timing: each round runs every contender once, so that they share the weather.

A ratio is taken within a round and its median over rounds is reported: a machine that slows down
for a minute slows down both.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.settings import Settings

Contender = Callable[[], object]
# Seconds of each round, or why there are none.
Times = dict[str, list[float] | str]
Row = dict[str, Any]

# A turn of several calls lasts about so many seconds at least: else it measures the scheduler.
_SHORTEST_TURN = 0.05


def interleave(
    contenders: Mapping[str, Contender],
    settings: Settings,
    *,
    patience: float = 30.0,
    limit: float = 60.0,
) -> Times:
    """Times contenders in turns.

    Args:
        contenders: Name to function. A failing one does not stop the others.
        settings: Number of rounds, which follow two calls that do not count; and where functions
            compute, for CUDA is waited for before and after each turn.
        patience: Seconds after which a slow contender sits out the rounds from the third on.
        limit: One that needs more seconds for one call is not measured.

    Returns:
        Seconds of a call in each round, or the reason why a contender was not measured.
    """
    times: Times = {}
    calls: dict[str, int] = {}
    device, shortest = settings.device, 0.0 if settings.quick else _SHORTEST_TURN
    for name, function in contenders.items():
        try:
            seconds = _turn(function, 1, device)
            if seconds <= limit and seconds < patience / 3:
                seconds = _turn(function, 1, device)
        except Exception as error:
            times[name] = reason(error)
            continue
        if seconds > limit:
            times[name] = f"a call takes {seconds:.0f} s, more than {limit:.0f} s"
        else:
            times[name] = []
            calls[name] = math.ceil(min(shortest / max(seconds, 1e-6), 1000)) or 1
    for index in range(settings.turns):
        for name, repeats in calls.items():
            mine = times[name]
            if isinstance(mine, list) and (index < 3 or sum(mine) < patience):
                mine.append(_turn(contenders[name], repeats, device))
    return times


def compare(times: Times, reference: str) -> dict[str, Row]:
    """Each contender's median seconds, and its time divided by the reference's.

    Args:
        times: What `interleave` measured.
        reference: Name of the contender whose ratio is 1.

    Returns:
        For each contender `median_seconds`, `rounds`, `ratio` (median over the rounds that both
        ran) and the `ratios` themselves, or `skipped` with the reason.
    """
    rows: dict[str, Row] = {}
    base = times[reference]
    for name, mine in times.items():
        if isinstance(mine, str):
            rows[name] = {"skipped": mine}
            continue
        rows[name] = {"median_seconds": statistics.median(mine), "rounds": len(mine)}
        if isinstance(base, list):
            ratios = [ours / first for ours, first in zip(mine, base, strict=False)]
            rows[name] |= {
                "ratio": statistics.median(ratios),
                "ratios": [float(f"{ratio:.4g}") for ratio in ratios],
            }
    return rows


def reason(error: BaseException) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def synchronise(device: str) -> None:
    """Waits for what a CUDA device has been given to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _turn(function: Contender, repeats: int, device: str) -> float:
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronise(device)
    return (time.perf_counter() - start) / repeats
