"""Verification from the same distances: TPR at a given FPR, as fast-reid's table has it.

All pairs of a query and a gallery image that is not removed, pooled over the queries. fast-reid
calls a pair of different identities positive: FPR is the share of true pairs beyond a distance, TPR
that of different ones. It takes the nearest corner of the curve, and so do we, without keeping the
different pairs: they are counted in a second pass over the distances.
"""

from collections.abc import Sequence

import numpy as np

from lightning_modules.vision.retrieval.distances import Distances, row_blocks
from lightning_modules.vision.retrieval.ranking import Array, Matches


def tpr_at_fpr(
    distances: Distances, matches: Sequence[Matches], true_pairs: Array, rates: Sequence[float]
) -> dict[float, float]:
    """True-positive rate, in 0..1, for each false-positive rate.

    Args:
        distances: (Q, G).
        matches: Of each query.
        true_pairs: Distances of all queries to their positives.
        rates: False-positive rates in 0..1, such as 1e-4, 1e-3, 1e-2.
    """
    values, counts = np.unique(true_pairs, return_counts=True)
    values, counts = values[::-1], counts[::-1]
    total, beyond = len(true_pairs), counts.cumsum()
    # A corner beyond twice the rate is farther from it than the origin; one more shows its slope.
    near = int(np.searchsorted(beyond, 2 * max(rates) * total, "right")) + 2
    values, counts, beyond = values[:near], counts[:near], beyond[:near]
    reached, passed, different = _count(distances, matches, values)
    # scikit-learn drops points between two equal steps of the curve.
    step = np.stack((counts, reached - passed), axis=1)
    dropped = np.zeros(len(values), dtype=bool)
    dropped[:-1] = (step[1:] == step[:-1]).all(axis=1) & (passed[1:] == reached[:-1])
    false_rates = np.concatenate(([0.0], beyond[~dropped] / total))
    true_rates = np.concatenate(([0.0], reached[~dropped] / max(different, 1)))
    nearest = [int(np.abs(false_rates - rate).argmin()) for rate in rates]
    return {rate: float(true_rates[i]) for rate, i in zip(rates, nearest, strict=True)}


def _count(
    distances: Distances, matches: Sequence[Matches], thresholds: Array
) -> tuple[Array, Array, int]:
    """Different pairs at or beyond each distance, beyond it, and in all."""
    reached, passed = np.zeros((2, len(thresholds)), dtype=np.int64)
    total = 0
    for start, stop in row_blocks(distances.shape):
        for row, own in zip(distances.rows(start, stop), matches[start:stop], strict=True):
            different = np.sort(np.delete(row, np.concatenate((own.positives, own.removed))))
            reached += len(different) - np.searchsorted(different, thresholds, "left")
            passed += len(different) - np.searchsorted(different, thresholds, "right")
            total += len(different)
    return reached, passed, total
