"""Superpoints of an embedded frame, as a segmenter of images would give them.

Regions of one solid and one orientation, cut into tiles; small ones fall to their neighbours, and
some pixels at boundaries take the label beyond: a mask of superpoints is close to an instance, but
not free of error.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.scannet.ray_casting import Hits

Array = npt.NDArray[Any]

# The side of a tile at 640 x 480, and the area below which a region is nobody's.
TILE, SMALLEST = 80, 450
# Orientations that count as one.
_BINS = 2.0
_LEAK, _REACH = 0.05, 3


def image_superpoints(hits: Hits, rng: np.random.Generator) -> Array:
    """Labels (H, W) from 0.

    Args:
        hits: What is seen.
        rng: Decides which pixels leak.
    """
    rows, columns = np.indices(hits.part.shape)
    orientation = (np.round(hits.normal * _BINS).astype(np.int64) + 3) @ (49, 7, 1)
    tile = rows // TILE * 64 + columns // TILE
    keys = (hits.part.astype(np.int64) * 1024 + orientation) * 4096 + tile
    labels = _components(keys)
    labels = _without_small(labels)
    return _leaking(labels, rng)


def relabelled(labels: Array) -> Array:
    """The same partition with labels 0, 1, ... without gaps, int64."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def _components(keys: Array) -> Array:
    """Connected regions (4 neighbours) of equal keys."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers = np.arange(keys.size).reshape(keys.shape)
    across, down = keys[:, 1:] == keys[:, :-1], keys[1:] == keys[:-1]
    a = np.concatenate((numbers[:, 1:][across], numbers[1:][down]))
    b = np.concatenate((numbers[:, :-1][across], numbers[:-1][down]))
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(keys.size, keys.size))
    labels: Array = connected_components(graph, directed=False)[1].reshape(keys.shape)
    return labels


def _without_small(labels: Array) -> Array:
    """Pixels of small regions take the label of the nearest large one."""
    from scipy.ndimage import distance_transform_edt

    large = np.bincount(labels.ravel()) >= SMALLEST
    nearest = distance_transform_edt(~large[labels], return_distances=False, return_indices=True)
    kept: Array = labels[tuple(nearest)]
    return kept


def _leaking(labels: Array, rng: np.random.Generator) -> Array:
    """A twentieth of the pixels take the label some pixels away, which differs at boundaries."""
    height, width = labels.shape
    pixels = np.flatnonzero(rng.random(labels.size) < _LEAK)
    row, column = np.divmod(pixels, width)
    steps = rng.integers(-_REACH, _REACH + 1, (2, len(pixels)))
    out = labels.copy().ravel()
    near = (row + steps[0]).clip(0, height - 1), (column + steps[1]).clip(0, width - 1)
    out[pixels] = labels[near]
    return out.reshape(labels.shape)
