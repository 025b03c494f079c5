"""A moving body with all that one must know to show it; what every wing's poses become first.

Display axes are right-handed: x to the right, y away from the viewer, z up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from blocks.geometry.skeleton import Skeleton

Array = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

# A body that travels further than this many times its height is followed.
_TRAVELS = 1.2


@dataclass(frozen=True, eq=False)
class SkeletonClip:
    """One body over time.

    Args:
        name: Of the clip.
        joints: (N, J, 3) in display axes, N at least 1.
        skeleton: Joints and bones.
        unit: Of the coordinates, e.g. `mm`.
        fps: Frames per second.
        caption: What else there is to say, such as the text behind a motion.
        truth: What it should have been, drawn over it in grey, (N, J, 3), or None.
        floor: Height of the floor; None where nobody knows it: it is drawn at the lowest point.
        feet: Joints that can touch the floor.
        contacts: Which of them do in each frame, (N, len(feet)), or None.
        scene: Clips of one scene are shown side by side; by default each is its own.
        facts: Measured properties by name, as texts.
    """

    name: str
    joints: Array
    skeleton: Skeleton
    unit: str
    fps: float
    caption: str = ""
    truth: Array | None = None
    floor: float | None = None
    feet: tuple[int, ...] = ()
    contacts: Flags | None = None
    scene: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def travels(self) -> bool:
        """Whether the body goes far, so that a view must follow it."""
        if self.floor is None:
            return False
        root = self.joints[:, self.skeleton.root, :2]
        height = float(np.ptp(self.joints[..., 2]))
        return bool(np.linalg.norm(np.ptp(root, axis=0)) > _TRAVELS * height)


def bounds(*joints: Array | None) -> tuple[Array, float]:
    """Centre (3,) and half edge of the cube that holds all joints (N, J, 3)."""
    points = np.concatenate([part.reshape(-1, 3) for part in joints if part is not None])
    low, high = points.min(0), points.max(0)
    half = float((high - low).max()) / 2
    return (low + high) / 2, 1.05 * (half or 1.0)
