"""ScanNet's average precision pair by pair: the definition, and what ours is timed with.

Written from the rules of ScanNet/ScanNet, evaluate_semantic_instance.py, without any thought of
speed: every overlap is counted anew from the masks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Sample(NamedTuple):
    """One scene or frame: M masks, P points.

    Args:
        masks: (M, P) bool.
        labels: (M,) class of each.
        scores: (M,) confidence.
        instance: (P,) truth, below 0 for none.
        semantic: (P,) its class, below 0 for points that are not evaluated.
    """

    masks: Array
    labels: Array
    scores: Array
    instance: Array
    semantic: Array


def naive_average_precision(
    samples: Sequence[Sample], num_classes: int, thresholds: Array, min_points: int = 100
) -> Array:
    """Average precision (num_classes, thresholds); NaN for a class without instances.

    Args:
        samples: Truth and masks.
        num_classes: Classes.
        thresholds: An overlap must be larger.
        min_points: Smaller masks and instances do not count.
    """
    rows = [
        [_of_class(samples, label, float(t), min_points) for t in thresholds]
        for label in range(num_classes)
    ]
    return np.array(rows)


def _of_class(samples: Sequence[Sample], label: int, threshold: float, least: int) -> float:
    scores: list[float] = []
    right: list[bool] = []
    missed = instances = 0
    for sample in samples:
        void = (sample.instance < 0) | (sample.semantic < 0)
        truths = _truths(sample, label)
        masks = [
            k
            for k in range(len(sample.masks))
            if sample.labels[k] == label and sample.masks[k].sum() >= least
        ]
        visited: set[int] = set()
        for truth in truths:
            if truth.sum() < least:
                continue
            instances += 1
            best = None
            for k in masks:
                if k in visited or not _overlap(sample.masks[k], truth) > threshold:
                    continue
                score = float(sample.scores[k])
                if best is None:
                    best = score
                    visited.add(k)
                else:
                    scores.append(min(best, score))
                    right.append(False)
                    best = max(best, score)
            if best is None:
                missed += 1
            else:
                scores.append(best)
                right.append(True)
        for k in masks:
            mask = sample.masks[k]
            if any(_overlap(mask, truth) > threshold for truth in truths):
                continue
            excused = (mask & void).sum()
            excused += sum((mask & truth).sum() for truth in truths if truth.sum() < least)
            if not excused / mask.sum() > threshold:
                scores.append(float(sample.scores[k]))
                right.append(False)
    if not instances:
        return float("nan")
    return _area(np.array(scores), np.array(right, dtype=bool), missed)


def _truths(sample: Sample, label: int) -> list[Array]:
    here = (sample.semantic == label) & (sample.instance >= 0)
    return [here & (sample.instance == k) for k in np.unique(sample.instance[here])]


def _overlap(mask: Array, truth: Array) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def _area(scores: Array, right: Array, missed: int) -> float:
    if not len(scores):
        return 0.0
    precision, recall = [], []
    for level in np.unique(scores):
        taken = scores >= level
        hits = (right & taken).sum()
        precision.append(hits / taken.sum())
        recall.append(hits / (right.sum() + missed) if hits else 0.0)
    precision.append(1.0)
    recall.append(0.0)
    area = 0.0
    for k, value in enumerate(precision):
        before = recall[max(k - 1, 0)]
        after = recall[min(k + 1, len(recall) - 1)]
        area += value * (before - after) / 2
    return area
