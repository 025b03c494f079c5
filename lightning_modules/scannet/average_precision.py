"""Average precision of instance masks as the ScanNet benchmark computes it.

Follows ScanNet/ScanNet, BenchmarkScripts/3d_evaluation/evaluate_semantic_instance.py, with which
mmdet3d and Mask3D agree. A sample (scene or frame) is reduced to a `Matches` record by one count
over (mask, instance); `average_precision` then works on all records at once. Neither changes what
it is given.

Axes: M masks, P points, K pairs of a mask and an instance, G instances, C classes, T thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# 0.50, 0.55 ... 0.90: papers write 0.5:0.95, but the benchmark's program ends before 0.95.
AP_THRESHOLDS = np.arange(0.5, 0.95, 0.05)
THRESHOLDS = np.append(AP_THRESHOLDS, 0.25)
AP50, AP25 = 0, len(THRESHOLDS) - 1
MIN_POINTS = 100
VOID = -1


@dataclass(frozen=True)
class Matches:
    """What the evaluation needs of one sample, in place of its masks.

    Args:
        labels: (M,) class of each mask.
        scores: (M,) its confidence.
        sizes: (M,) its points.
        void: (M,) its points that belong to no instance of an evaluated class.
        pairs: (K, 3) mask, instance of the same class, and the points they share, which are at
            least one; sorted by instance, then by mask.
        truth_labels: (G,) class of each instance.
        truth_sizes: (G,) its points.
    """

    labels: Array
    scores: Array
    sizes: Array
    void: Array
    pairs: Array
    truth_labels: Array
    truth_sizes: Array


@dataclass(frozen=True)
class APScores:
    """Average precision, 0 to 1; NaN where a class has no instance.

    Args:
        per_class: (C, T) at each of `THRESHOLDS`.
    """

    per_class: Array

    @property
    def ap(self) -> Array:
        """(C,) mean over the nine thresholds from 0.5 to 0.9."""
        mean: Array = self.per_class[:, : len(AP_THRESHOLDS)].mean(1)
        return mean

    @property
    def ap50(self) -> Array:
        """(C,) at an overlap of 0.5."""
        column: Array = self.per_class[:, AP50]
        return column

    @property
    def ap25(self) -> Array:
        """(C,) at an overlap of 0.25."""
        column: Array = self.per_class[:, AP25]
        return column

    def summary(self, classes: Sequence[int] | None = None) -> dict[str, float]:
        """ap, ap50 and ap25: means over the classes that have instances.

        Args:
            classes: Which classes; null for all.
        """
        rows = slice(None) if classes is None else list(classes)
        values = {"ap": self.ap, "ap50": self.ap50, "ap25": self.ap25}
        return {name: _nanmean(value[rows]) for name, value in values.items()}


def match(
    masks: Array,
    labels: Array,
    scores: Array,
    instance: Array,
    semantic: Array,
    min_points: int = MIN_POINTS,
) -> Matches:
    """Counts what masks and instances of one sample share.

    Args:
        masks: (M, P) bool. Those of fewer than `min_points` points are left out.
        labels: (M,) class of each, 0 or more.
        scores: (M,) confidence.
        instance: (P,) instance of each point, 0 or more; below 0 for none.
        semantic: (P,) its class; below 0 for points that are not evaluated. An instance with
            several classes is one instance of each.
        min_points: Smallest mask.
    """
    masks = np.asarray(masks, dtype=bool)
    sizes = np.count_nonzero(masks, 1)
    kept = np.flatnonzero(sizes >= min_points)
    labels, scores, sizes = np.asarray(labels)[kept], np.asarray(scores)[kept], sizes[kept]
    evaluated = (instance >= 0) & (semantic >= 0)
    keys = np.stack((semantic[evaluated], instance[evaluated]))
    found, place, truth_sizes = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    truth_labels = found[0].astype(np.int64)
    # Column 0 counts what is void, the others an instance each.
    column = np.zeros(len(instance), dtype=np.int64)
    column[evaluated] = place.ravel() + 1
    shared = _counts(masks[kept], column, len(truth_labels) + 1)
    void, shared = shared[:, 0], shared[:, 1:]
    truth, mask = np.nonzero((shared > 0).T & (truth_labels[:, None] == labels))
    pairs = np.stack((mask, truth, shared[mask, truth]), 1)
    return Matches(labels.astype(np.int64), scores, sizes, void, pairs, truth_labels, truth_sizes)


def average_precision(
    matches: Sequence[Matches], num_classes: int, min_points: int = MIN_POINTS
) -> APScores:
    """Average precision over all samples.

    Args:
        matches: One record for each sample.
        num_classes: C; labels are 0 to C - 1, others do not count.
        min_points: Instances of fewer points are not looked for, and excuse masks on them.
    """
    joined = joined_matches(matches)
    mask, truth, shared = joined.pairs.T
    union = joined.sizes[mask] + joined.truth_sizes[truth] - shared
    overlap = shared / union
    small = joined.truth_sizes < min_points
    excused = np.bincount(mask, shared * small[truth], len(joined.labels)) + joined.void
    share_excused = excused / np.maximum(joined.sizes, 1)
    per_class = np.full((num_classes, len(THRESHOLDS)), np.nan)
    for column, threshold in enumerate(THRESHOLDS):
        near = overlap > threshold
        wrong = np.bincount(mask[near], minlength=len(joined.labels)) == 0
        wrong &= share_excused <= threshold
        used = near & ~small[truth]
        best, extra, missed = _assigned(mask[used], truth[used], joined, small)
        true_scores, true_labels = best
        false_scores = np.concatenate((extra[0], joined.scores[wrong]))
        false_labels = np.concatenate((extra[1], joined.labels[wrong]))
        for label in np.unique(joined.truth_labels[~small]):
            if 0 <= label < num_classes:
                per_class[label, column] = _area(
                    true_scores[true_labels == label],
                    false_scores[false_labels == label],
                    int((joined.truth_labels[missed] == label).sum()),
                )
    return APScores(per_class)


def joined_matches(matches: Sequence[Matches]) -> Matches:
    """All records as one: masks and instances are counted on from sample to sample."""
    if not matches:
        nothing = np.zeros(0, dtype=np.int64)
        pairs = np.zeros((0, 3), dtype=np.int64)
        return Matches(nothing, np.zeros(0), nothing, nothing, pairs, nothing, nothing)
    offsets = np.zeros((len(matches), 3), dtype=np.int64)
    counts = [(len(m.labels), len(m.truth_labels), 0) for m in matches]
    offsets[1:] = np.cumsum(counts, 0)[:-1]

    def column(name: str) -> Array:
        return np.concatenate([getattr(m, name) for m in matches])

    return Matches(
        labels=column("labels"),
        scores=column("scores"),
        sizes=column("sizes"),
        void=column("void"),
        pairs=np.concatenate([m.pairs + start for m, start in zip(matches, offsets, strict=True)]),
        truth_labels=column("truth_labels"),
        truth_sizes=column("truth_sizes"),
    )


def _counts(masks: Array, column: Array, columns: int) -> Array:
    """Points of each mask in each column, (M, columns), in one count."""
    row, point = np.nonzero(masks)
    total = np.bincount(row * columns + column[point], minlength=len(masks) * columns)
    counts: Array = total.reshape(len(masks), columns)
    return counts


def _assigned(
    mask: Array, truth: Array, joined: Matches, small: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array], Array]:
    """Gives instances their masks.

    Of several masks on an instance the most confident is right and the others are wrong. The
    benchmark goes through instances in order, and a mask that was the first of one is not seen
    again; above an overlap of 0.5 no mask meets a second instance, so order does not matter.

    Args:
        mask: (K,) of the pairs that overlap enough, sorted by instance, then by mask.
        truth: (K,) their instances.
        joined: All samples.
        small: (G,) instances that do not count.

    Returns:
        Scores and labels of right masks, the same of wrong ones, and the instances without a mask.
    """
    if np.bincount(mask, minlength=1).max() > 1:
        seen = _unvisited(mask, truth)
        mask, truth = mask[seen], truth[seen]
    scores, labels = joined.scores[mask], joined.truth_labels[truth]
    # By instance; in each the most confident last.
    order = np.lexsort((scores, truth))
    last = np.append(truth[order][1:] != truth[order][:-1], True)[: len(order)]
    best, rest = order[last], order[~last]
    missed = ~small
    missed[truth] = False
    return (scores[best], labels[best]), (scores[rest], labels[rest]), np.flatnonzero(missed)


def _unvisited(mask: Array, truth: Array) -> Array:
    """Which pairs the benchmark looks at, (K,)."""
    visited: set[int] = set()
    seen = np.zeros(len(mask), dtype=bool)
    served = -1
    for k, (m, t) in enumerate(zip(mask.tolist(), truth.tolist(), strict=True)):
        if m in visited:
            continue
        seen[k] = True
        if t != served:
            visited.add(m)
            served = t
    return seen


def _area(right: Array, wrong: Array, missed: int) -> float:
    """Area under precision and recall, a point for each distinct score and no envelope.

    Args:
        right: Scores of right masks.
        wrong: Scores of wrong ones.
        missed: Instances without a mask.
    """
    scores = np.concatenate((right, wrong))
    if not len(scores):
        return 0.0
    true = np.concatenate((np.ones(len(right)), np.zeros(len(wrong))))
    order = np.argsort(scores)
    levels, first = np.unique(scores[order], return_index=True)
    below = np.append(0, np.cumsum(true[order]))[first]
    hits = len(right) - below
    taken = len(scores) - first
    recall = np.append(hits / max(len(right) + missed, 1), 0.0)
    precision = np.append(hits / taken, 1.0)
    steps = np.convolve(np.concatenate((recall[:1], recall, [0.0])), (-0.5, 0, 0.5), "valid")
    return float(precision @ steps)


def _nanmean(values: Array) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")
