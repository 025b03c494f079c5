"""Distances from queries to a gallery, a block of rows at a time.

Only ever a few rows lie in memory: 20,000 x 200,000 distances would be 16 GB.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.errors import SuiteError

FeatureMetric = Literal["cosine", "euclidean"]
Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]
# Of float32 numbers in a block, 256 MiB.
_BLOCK_NUMBERS = 1 << 26
_BLOCK_ROWS = 256


class Distances(Protocol):
    """A matrix (Q, G) of which rows can be had; smaller is nearer."""

    shape: tuple[int, int]

    def rows(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` as a float32 array (stop - start, G)."""


class FeatureDistances:
    """Distances between features, computed when asked for.

    `cosine` gives -cos, which orders as 1 - cos and is finer near 0; `euclidean` gives the square.

    Args:
        query: (Q, F) float32 on the CPU.
        gallery: (G, F).
        metric: Unit vectors or vectors as they are.

    Raises:
        SuiteError: Features are not finite, so they have no order.
    """

    def __init__(self, query: Tensor, gallery: Tensor, metric: FeatureMetric = "cosine") -> None:
        check_finite(query, "query")
        check_finite(gallery, "gallery")
        self.shape = (len(query), len(gallery))
        self.metric = metric
        if metric == "cosine":
            query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
        self._query, self._gallery = query, gallery
        self._squares = gallery.square().sum(dim=1)

    def rows(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of the matrix."""
        query = self._query[start:stop]
        if self.metric == "cosine":
            found = (-query) @ self._gallery.T
        else:
            found = torch.addmm(self._squares, query, self._gallery.T, alpha=-2)
            found += query.square().sum(dim=1, keepdim=True)
            found.clamp_(min=0)
        array: Rows = found.numpy()
        return array


class MatrixDistances:
    """Distances that are all there already.

    Args:
        matrix: (Q, G) float32.
    """

    def __init__(self, matrix: Rows) -> None:
        self.matrix = matrix
        self.shape: tuple[int, int] = matrix.shape

    def rows(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of the matrix."""
        return self.matrix[start:stop]


def row_blocks(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Starts and ends of blocks of rows that fit into memory.

    Args:
        shape: Rows and columns of the whole matrix.
    """
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_NUMBERS // max(shape[1], 1)))
    for start in range(0, shape[0], rows):
        yield start, min(start + rows, shape[0])


def check_finite(features: Tensor, name: str) -> None:
    """Refuses NaN and infinity, before which every comparison is false and every rank first.

    Args:
        features: (N, F).
        name: What they are called in the error.

    Raises:
        SuiteError: Some are not finite.
    """
    wrong = int((~features.isfinite().all(dim=1)).sum())
    if wrong:
        raise SuiteError(
            expected=f"finite {name} features",
            found=f"NaN or infinity in {wrong} of {len(features)}",
            where="retrieval evaluation",
            cure="the network has diverged: lower optimizer.lr, clip gradients, or use 32-true",
        )
