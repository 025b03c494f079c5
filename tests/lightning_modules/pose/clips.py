"""Poses for the tests of what is shown and written."""

import numpy as np

from blocks.geometry.skeleton import H36M
from lightning_modules.pose.pose_clip import Array, PoseClip


def walking(frames: int = 6, seed: int = 0) -> Array:
    """Poses (N, 17, 3) in millimetres with the root at the origin."""
    random = np.random.default_rng(seed)
    poses = random.normal(0, 300, (1, 17, 3)) + random.normal(0, 20, (frames, 17, 3)).cumsum(0)
    return (poses - poses[:, :1]).astype(np.float32)


def clip(frames: int = 6, truth: bool = True, fps: float = 50.0) -> PoseClip:
    other = walking(frames, seed=1) if truth else None
    return PoseClip("S9 <Walking>", walking(frames), H36M, "mm", True, fps, other)
