"""Elastic distortion of point clouds (Choy et al., 2019; in OneFormer3D and ESAM).

A coarse grid of noise, blurred, moves every point by its interpolated value.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Granularity and magnitude, voxels: a fine distortion, then a coarse one.
STEPS = ((6.0, 40.0), (20.0, 160.0))


def distorted(xyz: Array, granularity: float, magnitude: float) -> Array:
    """Points after one distortion; draws from numpy's global random state.

    Args:
        xyz: (P, 3), any unit.
        granularity: Half of the noise grid's spacing, in that unit.
        magnitude: Standard deviation of the noise before it is blurred, in that unit.
    """
    from scipy.ndimage import map_coordinates, uniform_filter1d

    shape = (np.abs(xyz).max(0).astype(np.int64) // granularity).astype(np.int64) + 3
    moved = xyz.astype(np.float64)
    # From -(n - 1) to n - 1 granularities in n steps, as upstream: a cell is two of them wide.
    places = ((xyz / granularity + (shape - 1)) / 2).T
    fields = [np.random.randn(*shape).astype(np.float32) for _ in range(3)]
    for axis, noise in enumerate(fields):
        for along in (0, 1, 2, 0, 1, 2):
            noise = uniform_filter1d(noise, 3, axis=along, mode="constant")
        moved[:, axis] += magnitude * map_coordinates(noise, places, order=1, mode="constant")
    out: Array = moved.astype(xyz.dtype)
    return out
