"""What cameras and a 2-D detector make of people who move by formulas."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Typical error of each joint, pixels: extremities are found worse than the trunk.
_SIGMA = np.array([3.5, 4, 5, 6.5, 4, 5, 6.5, 3.5, 3, 3.5, 4, 4, 5.5, 7, 4, 5.5, 7])
# A joint this far behind the pelvis is often hidden, and found that much worse.
_HIDDEN_MM, _HIDDEN_FACTOR = 60.0, 1.8
_SMOOTH_FRAMES, _SMOOTH_SHARE, _WHITE_SHARE = 2.0, 0.85, 0.3
# Now and then a joint is taken for another one for half a second.
_BURST_SHARE, _BURST_FRAMES, _BURST_PX = 0.02, 25, 18.0
_HALF_CONFIDENCE_PX, _CONFIDENCE_NOISE = 18.0, 0.04


def look_at(points: Array, position: Array, target: Array) -> Array:
    """Points (..., 3) in the axes of a camera at `position` that looks at `target`.

    Args:
        points: In the world, z up.
        position: Of the camera, (3,).
        target: In the middle of its image, (3,).
    """
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    axes = np.stack((right, np.cross(forward, right), forward))
    seen: Array = (points - position) @ axes.T
    return seen


def detect(pixels: Array, depth: Array, random: np.random.RandomState) -> tuple[Array, Array]:
    """A detector's joints (F, 17, 2) and confidences (F, 17).

    Args:
        pixels: Where they are, (F, 17, 2).
        depth: Behind the pelvis, (F, 17), millimetres.
        random: Its errors.
    """
    from scipy.ndimage import gaussian_filter1d

    shape = pixels.shape
    smooth = gaussian_filter1d(random.standard_normal(shape), _SMOOTH_FRAMES, axis=0, mode="wrap")
    # A mean over neighbours has less spread than they: by this, for a Gaussian window.
    smooth *= (2 * np.pi**0.5 * _SMOOTH_FRAMES) ** 0.5
    sigma = _SIGMA * np.where(depth > _HIDDEN_MM, _HIDDEN_FACTOR, 1.0)
    white = random.standard_normal(shape)
    error = sigma[..., None] * (_SMOOTH_SHARE * smooth + _WHITE_SHARE * white)
    error += _bursts(len(pixels), random)
    distance = np.linalg.norm(error, axis=-1)
    confidence = 1 / (1 + (distance / _HALF_CONFIDENCE_PX) ** 2)
    confidence += random.normal(0, _CONFIDENCE_NOISE, confidence.shape)
    return pixels + error, confidence.clip(0, 1)


def _bursts(frames: int, random: np.random.RandomState) -> Array:
    count = -(-frames // _BURST_FRAMES)
    there = random.random((count, 17, 1)) < _BURST_SHARE
    jumps = there * random.normal(0, _BURST_PX, (count, 17, 2))
    return np.repeat(jumps, _BURST_FRAMES, axis=0)[:frames]
