"""k-reciprocal re-ranking (Zhong et al., arXiv 1701.08398), in blocks and with a sparse matrix.

Two images that are among each other's neighbours share neighbours if they show the same identity.
Each image i of queries and gallery together (N = Q + G) gets weights V_i over its k-reciprocal
neighbours; images are compared by the Jaccard distance of their weights:

    final = (1 - lambda) (1 - sum min(V_q, V_g) / sum max(V_q, V_g)) + lambda d(q, g)

with d the squared distance divided by the row's largest. The public code keeps three dense N x N
matrices; here V is sparse, neighbours are N x (k1 + 1) and distances a block of rows.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.vision.retrieval.distances import (
    FeatureMetric,
    MatrixDistances,
    Rows,
    check_finite,
    row_blocks,
)
from lightning_modules.vision.retrieval.ranking import Array


@dataclass(frozen=True)
class ReRanking:
    """Settings of k-reciprocal re-ranking.

    Args:
        k1: Neighbours that may be reciprocal; TransReID's code takes 50.
        k2: Neighbours whose weights are averaged, the image itself included; 1 = none. TransReID's
            code takes 15.
        weight: Share lambda of the original distance, in 0..1.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or not 1 <= self.k2 <= self.k1 + 1 or not 0 <= self.weight <= 1:
            raise SuiteError(
                expected="k1 from 1, k2 in 1..k1 + 1 and weight in 0..1",
                found=f"k1={self.k1}, k2={self.k2}, weight={self.weight}",
                where="rerank",
                cure="20, 6 and 0.3 are the published choice",
            )


class _Squares(Protocol):
    """Squared distances among all images, queries first."""

    shape: tuple[int, int]

    def rows(self, start: int, stop: int) -> Rows:
        """Whole rows."""

    def at(self, row: int, columns: Array) -> Array:
        """Some entries of a row."""


class ReRanked:
    """Distances (Q, G) after re-ranking, a block of rows at a time; smaller is nearer.

    Args:
        squares: Squared distances among all images.
        queries: How many of them are queries; they come first.
        settings: Numbers of neighbours and the share of the original distance.
    """

    def __init__(self, squares: _Squares, queries: int, settings: ReRanking) -> None:
        count = squares.shape[0]
        self.shape = (queries, count - queries)
        self._squares, self._settings = squares, settings
        neighbours, self._largest = _neighbours(squares, settings.k1)
        weights = _weights(squares, neighbours, self._largest, settings.k1)
        if settings.k2 > 1:
            weights = _average(neighbours[:, : settings.k2]) @ weights
        self._query_weights = weights[:queries].tocsr()
        # By column: who in the gallery has weight on an image.
        self._gallery_weights = weights[queries:].tocsc()

    @classmethod
    def of_features(
        cls,
        query: Tensor,
        gallery: Tensor,
        metric: FeatureMetric = "cosine",
        settings: ReRanking = ReRanking(),
    ) -> "ReRanked":
        """Re-ranks by features (Q, F) and (G, F)."""
        features = torch.cat((query, gallery))
        check_finite(features, "query and gallery")
        if metric == "cosine":
            features = F.normalize(features, dim=1)
        return cls(_FeatureSquares(features), len(query), settings)

    @classmethod
    def of_matrices(
        cls, query_gallery: Rows, query_query: Rows, gallery_gallery: Rows, settings: ReRanking
    ) -> "ReRanked":
        """Re-ranks by Euclidean distances (Q, G), (Q, Q) and (G, G), not squared."""
        upper = np.concatenate((query_query, query_gallery), axis=1)
        lower = np.concatenate((query_gallery.T, gallery_gallery), axis=1)
        squares = np.square(np.concatenate((upper, lower)))
        return cls(_MatrixSquares(squares), len(query_query), settings)

    def rows(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of the matrix."""
        queries, gallery = self.shape
        weight, weights = self._settings.weight, self._gallery_weights
        # Only what the original distances contribute needs them.
        found = np.zeros((stop - start, gallery), dtype=np.float32)
        if weight > 0:
            original = self._squares.rows(start, stop)[:, queries:]
            found += weight * original / self._largest[start:stop, None]
        for i in range(start, stop):
            own = self._query_weights[i]
            columns = weights[:, own.indices]
            lesser = np.minimum(columns.data, np.repeat(own.data, np.diff(columns.indptr)))
            shared = np.bincount(columns.indices, lesser, minlength=gallery)
            # Weights sum to 1 on either side, so the sum of maxima is 2 - the sum of minima.
            found[i - start] += (1 - weight) * (1 - shared / (2 - shared))
        return found


class _FeatureSquares:
    def __init__(self, features: Tensor) -> None:
        self.shape = (len(features), len(features))
        self._features, self._squares = features, features.square().sum(dim=1)

    def rows(self, start: int, stop: int) -> Rows:
        own = self._features[start:stop]
        found = torch.addmm(self._squares, own, self._features.T, alpha=-2)
        found += self._squares[start:stop, None]
        array: Rows = found.clamp_(min=0).numpy()
        return array

    def at(self, row: int, columns: Array) -> Array:
        chosen = torch.from_numpy(columns)
        inner = self._features[chosen] @ self._features[row]
        found: Array = (self._squares[chosen] + self._squares[row] - 2 * inner).clamp(min=0).numpy()
        return found


class _MatrixSquares(MatrixDistances):
    def at(self, row: int, columns: Array) -> Array:
        found: Array = self.matrix[row, columns]
        return found


def _neighbours(squares: _Squares, k1: int) -> tuple[Array, Array]:
    """The k1 + 1 nearest of each image, itself included, nearest first; and its largest square."""
    count = squares.shape[0]
    near = min(k1 + 1, count)
    found = np.empty((count, near), dtype=np.int64)
    largest = np.empty(count, dtype=np.float32)
    for start, stop in row_blocks(squares.shape):
        rows = torch.from_numpy(squares.rows(start, stop))
        found[start:stop] = rows.topk(near, dim=1, largest=False).indices.numpy()
        largest[start:stop] = rows.amax(dim=1).numpy()
    return found, np.maximum(largest, np.finfo(np.float32).tiny)


def _weights(squares: _Squares, neighbours: Array, largest: Array, k1: int) -> Any:
    """Sparse (N, N): exp(-distance) over the expanded reciprocal neighbours, each row of sum 1."""
    from scipy.sparse import csr_matrix

    # numpy rounds half to even, as the public code does.
    half = int(np.around(k1 / 2)) + 1
    wide, narrow = _reciprocal(neighbours), _reciprocal(neighbours[:, :half])
    indices, values, counts = [], [], []
    for i, own in enumerate(wide):
        expanded = [own]
        for candidate in own:
            theirs = narrow[candidate]
            if np.isin(theirs, own, assume_unique=True).sum() > 2 / 3 * len(theirs):
                expanded.append(theirs)
        chosen = np.unique(np.concatenate(expanded))
        weight = np.exp(-squares.at(i, chosen) / largest[i])
        indices.append(chosen)
        values.append((weight / weight.sum()).astype(np.float32))
        counts.append(len(chosen))
    ends = np.concatenate(([0], np.cumsum(counts)))
    shape = (len(wide), len(wide))
    return csr_matrix((np.concatenate(values), np.concatenate(indices), ends), shape=shape)


def _reciprocal(neighbours: Array) -> list[Array]:
    """Of each image's neighbours those that have it among theirs."""
    count, near = neighbours.shape
    found = []
    for start, stop in row_blocks((count, near * near)):
        own = neighbours[start:stop]
        mutual = (neighbours[own] == np.arange(start, stop)[:, None, None]).any(axis=2)
        found += [row[chosen] for row, chosen in zip(own, mutual, strict=True)]
    return found


def _average(neighbours: Array) -> Any:
    """Sparse (N, N) that averages over each image's neighbours."""
    from scipy.sparse import csr_matrix

    count, near = neighbours.shape
    share = np.full(count * near, 1 / near, dtype=np.float32)
    ends = np.arange(0, count * near + 1, near)
    return csr_matrix((share, neighbours.ravel(), ends), shape=(count, count))
