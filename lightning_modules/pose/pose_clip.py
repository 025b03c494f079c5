"""A sequence of poses with all that one must know to show it: joints, axes, unit, speed.

Axes are the camera's: x to the right, y down, z away from it. On a display z is depth and height
is -y, so `displayed` gives (x, z, -y), right-handed with the third axis up.
"""

from dataclasses import dataclass

import numpy as np

from blocks.geometry.skeleton import Skeleton
from lightning_modules.skeleton_clip import Array, SkeletonClip

# What a network trained on normalised poses puts out.
IMAGE_UNIT = "half image widths"
MILLIMETRES = "mm"


@dataclass(frozen=True, eq=False)
class PoseClip:
    """Poses of one person.

    Args:
        name: Of the video or clip.
        poses: (N, J, 3), in camera axes, N at least 1.
        skeleton: Joints and bones.
        unit: Of the coordinates, e.g. `mm`.
        root_relative: Whether the root is at the origin in every frame.
        fps: Frames per second.
        truth: Poses of the data set in the same unit, (N, J, 3), or None.
    """

    name: str
    poses: Array
    skeleton: Skeleton
    unit: str
    root_relative: bool
    fps: float
    truth: Array | None = None

    @property
    def space(self) -> str:
        """Where the origin is."""
        return "root-relative" if self.root_relative else "camera-space"

    @property
    def caption(self) -> str:
        """Space and unit, for titles."""
        return f"{self.space}, {self.unit}"

    def shown(self) -> SkeletonClip:
        """As a page shows it: the truth behind the prediction."""
        truth = None if self.truth is None else displayed(self.truth)
        return self._clip(self.name, self.poses, truth)

    def panels(self) -> list[SkeletonClip]:
        """As a film shows it: the truth beside the prediction."""
        named = {"prediction": self.poses} | ({} if self.truth is None else {"truth": self.truth})
        return [self._clip(name, poses) for name, poses in named.items()]

    def _clip(self, name: str, poses: Array, truth: Array | None = None) -> SkeletonClip:
        joints = displayed(poses)
        return SkeletonClip(name, joints, self.skeleton, self.unit, self.fps, self.caption, truth)


def displayed(poses: Array) -> Array:
    """Poses (..., 3) in display axes: to the right, away from the viewer, up."""
    return np.stack((poses[..., 0], poses[..., 2], -poses[..., 1]), -1)


def body_height(poses: Array, skeleton: Skeleton) -> float:
    """Height of a body from ankles to crown, however it is bent: its bones laid end to end.

    Args:
        poses: (N, J, 3). Each bone has its median length over the frames.
        skeleton: With ankles and a head.

    Returns:
        Height in the unit of the poses.
    """
    names, parents = skeleton.names, skeleton.parents
    start = np.where(np.array(parents) < 0, skeleton.root, parents)
    length = np.median(np.linalg.norm(poses - poses[:, start], axis=-1), axis=0)

    def chain(joint: int) -> list[int]:
        return [joint, *chain(parents[joint])] if parents[joint] >= 0 else []

    trunk = chain(names.index("head top" if "head top" in names else "head"))
    # The bone from the root to a hip lies across the body.
    legs = [chain(names.index(f"{side} ankle"))[:-1] for side in ("left", "right")]
    return float(length[trunk].sum() + np.mean([length[leg].sum() for leg in legs]))
