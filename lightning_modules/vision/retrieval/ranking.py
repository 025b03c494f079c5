"""Ranks of the right gallery images, without sorting the gallery.

A positive's rank is 1 + the number of images before it, counted by comparisons with its distance.
Equal distances rank by gallery index, as a stable sort would have it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lightning_modules.vision.retrieval.distances import Distances, row_blocks

Array = np.ndarray[Any, np.dtype[Any]]
# Above so many positives, sorting the row once costs less than a comparison with each of them.
_COMPARED = 128


@dataclass(frozen=True)
class Matches:
    """Gallery images that show a query's identity.

    Args:
        positives: Indices of those to be found, ascending.
        removed: Indices of those that count neither as right nor as wrong.
    """

    positives: Array
    removed: Array


class IdentityIndex:
    """Finds the gallery images of an identity.

    Args:
        identity: (G,) of the gallery.
        camera: (G,) of the gallery; `None` = nothing is removed for its camera.
    """

    def __init__(self, identity: Array, camera: Array | None) -> None:
        self._order = identity.argsort(kind="stable")
        self._sorted = identity[self._order]
        self._camera = camera

    def matches(self, identity: int, camera: int) -> Matches:
        """Positives, and what the camera rule removes: same identity, same camera."""
        start, stop = np.searchsorted(self._sorted, [identity, identity + 1])
        same = self._order[start:stop]
        if self._camera is None:
            return Matches(same, same[:0])
        own = self._camera[same] == camera
        return Matches(same[~own], same[own])

    def of_queries(self, identity: Array, camera: Array) -> list[Matches]:
        """Matches of every query.

        Args:
            identity: (Q,).
            camera: (Q,).
        """
        pairs = zip(identity.tolist(), camera.tolist(), strict=True)
        return [self.matches(*pair) for pair in pairs]


def positive_ranks(row: Array, matches: Matches) -> Array:
    """Ascending ranks, from 1, of the positives among the images that are not removed.

    Args:
        row: (G,) distances of a query.
        matches: Its positives and removed images.
    """
    positives, removed = matches.positives, matches.removed
    distances = row[positives]
    if len(positives) <= _COMPARED:
        before = np.array([np.count_nonzero(row < d) for d in distances], dtype=np.int64)
        tied = np.ones(len(positives), dtype=bool)
    else:
        ordered = np.sort(row)
        before = np.searchsorted(ordered, distances, "left").astype(np.int64)
        tied = np.searchsorted(ordered, distances, "right") - before > 1
    for i in np.flatnonzero(tied):
        before[i] += np.count_nonzero(row[: positives[i]] == distances[i])
    gone = row[removed][None]
    nearer = gone < distances[:, None]
    equal = (gone == distances[:, None]) & (removed[None] < positives[:, None])
    ranks: Array = np.sort(before - (nearer | equal).sum(axis=1) + 1)
    return ranks


def each_query(distances: Distances, answers: list[Matches]) -> Iterator[tuple[Array, Array]]:
    """Distances of every query, in order, and the ranks of its positives.

    Args:
        distances: (Q, G).
        answers: What is right for each query.
    """
    # Comparisons of whole rows let go of the interpreter's lock.
    with ThreadPoolExecutor(max(torch.get_num_threads(), 1)) as pool:
        for start, stop in row_blocks(distances.shape):
            rows = distances.rows(start, stop)
            ranks = pool.map(positive_ranks, rows, answers[start:stop])
            yield from zip(rows, ranks, strict=True)
