"""Superpoints of a cloud that brings none: a graph-based over-segmentation of its surfaces.

Efficient Graph-Based Image Segmentation (Felzenszwalb and Huttenlocher, 2004) on a graph of nearest
neighbours, as ScanNet's own Segmentator does on a mesh: two regions join unless the step between
them, in orientation and colour, is large against the steps inside both. Axes: P points, E edges.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Neighbours that a point is joined to, and those that its normal is made from.
_LINKED, _SURFACE = 8, 16
_GRAIN, _SMALLEST = 0.03, 20
# A full change of colour counts as so much of a right angle.
_COLOR_WEIGHT = 0.6


def oversegment(
    xyz: Array,
    rgb: Array | None = None,
    normals: Array | None = None,
    grain: float = _GRAIN,
    smallest: int = _SMALLEST,
) -> Array:
    """Superpoint of each point, int64 (P,), 0.. without gaps; the same for the same points.

    Args:
        xyz: (P, 3), metres.
        rgb: (P, 3), 0 to 255; null leaves colour out.
        normals: (P, 3), of any sign; null computes them.
        grain: Larger makes larger superpoints.
        smallest: Points of the smallest superpoint; smaller ones join their neighbour.
    """
    from scipy.spatial import cKDTree

    count = len(xyz)
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    tree = cKDTree(xyz)
    _, near = tree.query(xyz, k=min(_SURFACE, count), workers=1)
    if normals is None:
        normals = surface_normals(xyz, near)
    edges = _edges(near[:, 1 : _LINKED + 1])
    a, b = edges.T
    weight = 1 - np.abs((normals[a] * normals[b]).sum(1))
    if rgb is not None:
        change = (rgb[a].astype(np.float32) - rgb[b]) / 255
        weight = weight + _COLOR_WEIGHT * (change * change).sum(1)
    order = np.argsort(weight, kind="stable")
    labels = _compiled()(a[order], b[order], weight[order], count, grain, smallest)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def surface_normals(xyz: Array, near: Array) -> Array:
    """Normals (P, 3), of any sign, of the planes through neighbours (P, K)."""
    around = xyz[near].astype(np.float64)
    around -= around.mean(1, keepdims=True)
    # The smallest axis of the neighbours' spread.
    normals: Array = np.linalg.eigh(around.transpose(0, 2, 1) @ around)[1][:, :, 0]
    return normals


def _edges(near: Array) -> Array:
    """Each pair of neighbours once, (E, 2)."""
    count, width = near.shape
    a, b = np.repeat(np.arange(count), width), near.ravel()
    keys = np.unique(np.minimum(a, b) * count + np.maximum(a, b))
    return np.stack(np.divmod(keys, count), 1)


def _join(a: Array, b: Array, weight: Array, count: int, grain: float, smallest: int) -> Array:
    """Joins regions along edges sorted by weight; compiled by numba."""
    parent = np.arange(count)
    size = np.ones(count, np.int64)
    limit = np.full(count, grain)
    for final in range(2):
        for e in range(len(a)):
            i, j = a[e], b[e]
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            while parent[j] != j:
                parent[j] = parent[parent[j]]
                j = parent[j]
            if i == j:
                continue
            similar = weight[e] <= limit[i] and weight[e] <= limit[j]
            small = final == 1 and (size[i] < smallest or size[j] < smallest)
            if similar or small:
                if size[i] < size[j]:
                    i, j = j, i
                parent[j] = i
                size[i] += size[j]
                # The largest step inside, plus what a region of this size is forgiven.
                limit[i] = weight[e] + grain / size[i]
    for i in range(count):
        while parent[parent[i]] != parent[i]:
            parent[i] = parent[parent[i]]
    return parent


@functools.cache
def _compiled() -> Any:
    """`_join`, compiled on first use, in about a second."""
    from numba import njit

    return njit(_join)
