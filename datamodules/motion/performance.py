"""Actions one after another, as joints of a body that moves over the ground."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from datamodules.motion.actions import ACTIONS, Manner
from datamodules.motion.body import ANKLE, FEET, Array, along, posed, resting, smoothstep
from datamodules.motion.foot_locking import locked

_BLEND = 0.4  # Seconds from one action to the next.
_EVEN, _LOWER = 4.0, 0.01  # Frames over which a walk's height is evened out; metres.


@dataclass(frozen=True)
class Part:
    """An action in a clip.

    Args:
        action: A name in `ACTIONS`.
        manner: How it is done.
        start: When it begins, seconds.
    """

    action: str
    manner: Manner
    start: float = 0.0


def perform(
    parts: Sequence[Part], frames: int, fps: float, heading: float = 0.0, scale: float = 1.0
) -> Array:
    """Joints (T, 22, 3) in metres, y up, feet on y = 0.

    Args:
        parts: What is done, in order of `start`.
        frames: T.
        fps: Frames in a second.
        heading: Where the body faces at first, from +z towards +x, radians.
        scale: Size of the body.
    """
    t = np.arange(frames) / fps
    first, *others = parts
    track = ACTIONS[first.action](t - first.start, first.manner)
    for part in others:
        weight = smoothstep((t - part.start) / _BLEND + 0.5)
        track = track.blended(ACTIONS[part.action](t - part.start, part.manner), weight)
    headings = heading + np.cumsum(track.turn) / fps
    root = np.cumsum(along(headings, track.side, track.forward), 0) * scale / fps
    joints = posed(track.angles, headings, scale)
    root += _below(joints, headings, track.planted, scale)
    height = -joints[:, FEET, 1].min(1)
    # A walk carries the pelvis evenly: legs that bend make up for it.
    on_the_spot = track.planted.max(1)
    even = gaussian_filter1d(height, _EVEN, mode="nearest") - _LOWER * scale
    root[:, 1] = track.lift + height * on_the_spot + even * (1 - on_the_spot)
    return locked(joints + root[:, None], fps)


def _below(joints: Array, headings: Array, planted: Array, scale: float) -> Array:
    """How far to move the body, (T, 3), so that planted feet keep their place below it."""
    rest = posed(resting(1), np.zeros(1), scale)[0, list(ANKLE)]
    place = np.stack([along(headings, x, z) for x, _, z in rest], 1)
    off = (place - joints[:, list(ANKLE)]) * (1, 0, 1) * planted[..., None]
    return np.asarray(off.sum(1) / np.maximum(planted.sum(1), 1)[:, None])
