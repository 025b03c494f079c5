"""Speed of ScanNet's average precision: ours against the definition, and a whole validation set.

Frames are random: 20,000 points, 15 instances, 100 masks that each cover one of them roughly.
"""

import time
from typing import Any

import numpy as np

from benchmarks.naive_instance_ap import Sample, naive_average_precision
from benchmarks.settings import Settings, Tell
from benchmarks.timing import compare, interleave
from lightning_modules.scannet.average_precision import THRESHOLDS, average_precision, match

# Frames of ScanNet200-SV's validation set.
_ALL, _NAIVE = 2_780, 4
_POINTS, _INSTANCES, _MASKS = 20_000, 15, 100


def measure_instance_ap(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures one core; both programs see the same frames, in turn.

    Args:
        settings: Whether to be quick, and rounds of the comparison.
        tell: Hears what is being done.

    Returns:
        `ratio` of the definition's time by ours on `frames` (`naive_seconds`, `frame_seconds` of
        one), `difference` of the results, and `seconds` for all `all_frames` of a validation set.
    """
    frames = [random_frame(k) for k in range(2 if settings.quick else _NAIVE)]
    tell(f"average precision of {len(frames)} frames, pair by pair")
    results: dict[str, Any] = {}

    def ours() -> None:
        results["ours"] = average_precision([match(*frame) for frame in frames], 1).per_class

    def naive() -> None:
        results["naive"] = naive_average_precision(frames, 1, THRESHOLDS)

    rows = compare(interleave({"ours": ours, "naive": naive}, settings), "ours")
    count = 20 if settings.quick else _ALL
    tell(f"average precision of {count:,} frames, ours")
    records, spent = [], 0.0
    for k in range(count):
        frame = random_frame(k)
        spent -= time.perf_counter()
        records.append(match(*frame))
        spent += time.perf_counter()
    spent -= time.perf_counter()
    average_precision(records, 1)
    spent += time.perf_counter()
    return {
        "frames": len(frames),
        "frame_seconds": rows["ours"]["median_seconds"] / len(frames),
        "naive_seconds": rows["naive"]["median_seconds"],
        "ratio": rows["naive"]["ratio"],
        "difference": float(np.abs(results["naive"] - results["ours"]).max()),
        "all_frames": count,
        "seconds": spent,
    }


def random_frame(seed: int, points: int = _POINTS, masks: int = _MASKS) -> Sample:
    """A frame with instances, and masks that cover parts of them and of their surroundings.

    Args:
        seed: Decides everything.
        points: P.
        masks: M.
    """
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(_INSTANCES + 1, 0.7))
    instance = rng.choice(_INSTANCES + 1, points, p=weights) - 1
    kept, spill = rng.uniform(0.3, 1.0, masks), rng.uniform(0.0, 0.03, masks)
    target = rng.integers(_INSTANCES, size=masks)
    inside = instance == target[:, None]
    chance = np.where(inside, kept[:, None], spill[:, None])
    found = rng.random((masks, points)) < chance
    semantic = np.where(instance < 0, -1, 0)
    return Sample(found, np.zeros(masks, int), rng.random(masks).round(2), instance, semantic)
