"""A body of 22 joints that is posed by angles; y up, metres, T frames.

Angles are (T, 22, 3): pitch about x, yaw about y, roll about z, in radians; a joint turns the bones
behind it by R_y(yaw) R_x(pitch) R_z(roll). All zero is a T-pose that faces +z, left arm to +x.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
OFFSETS: Array = np.array(
    [
        (0, 0, 0), (.06, -.09, -.01), (-.06, -.09, -.01), (0, .12, -.03), (.04, -.38, 0),
        (-.04, -.38, 0), (0, .14, 0), (-.01, -.40, -.04), (.01, -.40, -.04), (0, .05, .02),
        (.03, -.06, .12), (-.03, -.06, .12), (0, .21, -.04), (.08, .11, -.02), (-.08, .11, -.02),
        (0, .09, .05), (.11, .04, -.01), (-.11, .04, -.01), (.26, -.01, -.02),
        (-.26, -.01, -.02), (.25, .01, 0), (-.25, .01, 0),
    ]
)  # fmt: skip

PITCH, YAW, ROLL = 0, 1, 2
# (left, right) of each limb's joints.
HIP, KNEE, ANKLE, TOE, SHOULDER, ELBOW = (1, 2), (4, 5), (7, 8), (10, 11), (16, 17), (18, 19)
SPINE = (3, 6, 9)
FEET = (7, 8, 10, 11)
_ARMS_DOWN, _ELBOWS = 1.25, 0.25
# Lowest joint of the body standing at rest, below the pelvis.
STANDING = 0.93


def resting(frames: int) -> Array:
    """Angles of somebody who stands with hanging arms."""
    angles = np.zeros((frames, len(PARENTS), 3))
    for side, sign in enumerate((1, -1)):
        angles[:, SHOULDER[side], ROLL] = -sign * _ARMS_DOWN
        angles[:, ELBOW[side], YAW] = -sign * _ELBOWS
    return angles


def posed(angles: Array, heading: Array, scale: float = 1.0) -> Array:
    """Joints (T, 22, 3) with the pelvis at the origin.

    Args:
        angles: (T, 22, 3).
        heading: Turn of the body from +z towards +x, (T,), radians.
        scale: Size of the body.
    """
    angles = angles.copy()
    angles[:, 0, YAW] += heading
    local = _rotations(angles)
    world = [local[:, 0]]
    joints = np.zeros((len(angles), len(PARENTS), 3))
    for joint, parent in enumerate(PARENTS[1:], 1):
        joints[:, joint] = joints[:, parent] + world[parent] @ (OFFSETS[joint] * scale)
        world.append(world[parent] @ local[:, joint])
    return joints


def along(heading: Array, side: Any, forward: Any) -> Array:
    """Vectors (T, 3) in the ground plane, given to the left of a heading and along it."""
    sin, cos = np.sin(heading), np.cos(heading)
    return np.stack((side * cos + forward * sin, 0 * sin, forward * cos - side * sin), -1)


def smoothstep(u: Any) -> Any:
    """0 to 1 as u goes from 0 to 1, without a jerk at the ends (quintic)."""
    u = np.clip(u, 0, 1)
    return u**3 * (6 * u**2 - 15 * u + 10)


def _rotations(angles: Array) -> Array:
    (sx, sy, sz), (cx, cy, cz) = (np.moveaxis(f(angles), -1, 0) for f in (np.sin, np.cos))
    rows = (
        (cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx),
        (cx * sz, cx * cz, -sx),
        (cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)
