"""Feet that stand still while they carry the body: anchors on the ground and two-bone legs.

A formula for legs and a speed of the body never fit each other exactly; the difference shows as
feet that slide. Here each stretch of frames in which a foot is down and slow gets one place on the
ground, and hip, knee and ankle are solved for it.
"""

import numpy as np
import numpy.typing as npt

from datamodules.motion.body import ANKLE, HIP, KNEE, TOE, Array, smoothstep

# Metres above the ground; metres a second, and as a part of the body's speed: a leg that swings
# forward goes about twice as fast as the body.
_DOWN, _SLOW, _SLOWER = 0.07, 0.5, 0.85
_FADE = 4  # Frames over which a correction comes and goes.


def locked(joints: Array, fps: float) -> Array:
    """The clip (T, 22, 3) with feet that stand on the ground and never sink into it.

    Args:
        joints: Places, y = 0 on the ground.
        fps: Frames in a second.
    """
    joints = joints.copy()
    slow = np.maximum(_SLOW, _SLOWER * _speed(joints[:, 0], fps))
    for hip, knee, ankle, toe in zip(HIP, KNEE, ANKLE, TOE, strict=True):
        foot = joints[:, ankle]
        lowest = joints[:, [ankle, toe], 1].min(1)
        shift = _corrections(foot, lowest, (lowest < _DOWN) & (_speed(foot, fps) < slow))
        shift[:, 1] = np.maximum(shift[:, 1], -lowest)
        joints[:, toe] += _solve(joints, hip, knee, ankle, foot + shift)
    return joints


def _speed(place: Array, fps: float) -> Array:
    """Over the ground, (T,), m/s."""
    return np.asarray(np.linalg.norm(np.gradient(place[:, [0, 2]], axis=0), axis=-1) * fps)


def _corrections(place: Array, lowest: Array, stands: npt.NDArray[np.bool_]) -> Array:
    """How far to move a foot, (T, 3), so that it rests on the ground in each stretch."""
    shift = np.zeros_like(place)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], stands.view(np.int8), [0]))))
    stretches = [(a, b) for a, b in edges.reshape(-1, 2).tolist() if b - a > 2]
    for number, (start, stop) in enumerate(stretches):
        own = place[start:stop].mean(0) - place[start:stop]
        own[:, 1] = -lowest[start:stop]
        shift[start:stop] += own
        before = stretches[number - 1][1] if number else 0
        after = stretches[number + 1][0] if number + 1 < len(stretches) else len(place)
        for room, edge, step in ((start - before, start, -1), (after - stop, stop - 1, 1)):
            for k in range(1, min(_FADE, room) + 1):
                fade = smoothstep(1 - k / (min(_FADE, room) + 1))
                shift[edge + step * k] += own[0 if step < 0 else -1] * fade
    return shift


def _solve(joints: Array, hip: int, knee: int, ankle: int, target: Array) -> Array:
    """Puts an ankle to its target, as far as the leg reaches; returns how far it went."""
    start = joints[:, ankle].copy()
    top, middle = joints[:, hip], joints[:, knee]
    upper = np.linalg.norm(middle - top, axis=-1, keepdims=True)
    lower = np.linalg.norm(start - middle, axis=-1, keepdims=True)
    line = target - top
    length = np.linalg.norm(line, axis=-1, keepdims=True)
    line = line / length
    length = np.minimum(length, 0.9995 * (upper + lower))
    bend = middle - top
    bend = bend - (bend * line).sum(-1, keepdims=True) * line
    bend /= np.maximum(np.linalg.norm(bend, axis=-1, keepdims=True), 1e-9)
    near = (upper**2 - lower**2 + length**2) / (2 * length)
    off = np.sqrt(np.maximum(upper**2 - near**2, 0))
    joints[:, knee] = top + near * line + off * bend
    joints[:, ankle] = top + length * line
    return joints[:, ankle] - start
