"""A generated or recorded motion as viewers and films take it."""

import numpy as np
import torch
from torch import Tensor

from blocks.geometry.motion_skeleton import MotionSkeleton
from blocks.geometry.skeleton import Skeleton
from lightning_modules.motion.physics import STANDING, PhysicalReport
from lightning_modules.skeleton_clip import Array, SkeletonClip

# A foot that is low and moves less than this touches the floor, m/s.
_STILL = 0.3


def motion_clip(
    name: str,
    joints: Tensor,
    skeleton: MotionSkeleton,
    caption: str = "",
    report: PhysicalReport | None = None,
    scene: str = "",
) -> SkeletonClip:
    """Makes a clip in metres with its floor and the contacts of its feet.

    Contacts are read off the places of the joints, not off the features that claim them, so that
    they tell what one sees.

    Args:
        name: What it is called beside others.
        joints: Places (T, J, 3) in the skeleton's unit, y up.
        skeleton: Whose joints they are.
        caption: The text behind it.
        report: Figures to show.
        scene: Clips of one scene are shown side by side.
    """
    metres = joints.detach().float().cpu() / skeleton.metre
    body = Skeleton(skeleton.joints, skeleton.parents, skeleton.left, skeleton.right)
    return SkeletonClip(
        name=name,
        joints=displayed(metres),
        skeleton=body,
        unit="m",
        fps=skeleton.fps,
        caption=caption,
        floor=0.0,
        feet=skeleton.feet,
        contacts=touching(metres, skeleton).numpy(),
        scene=scene,
        facts={} if report is None else report.as_texts(),
    )


def displayed(joints: Tensor) -> Array:
    """Places (..., 3) with y up in display axes: to the right, away from the viewer, up."""
    x, y, z = joints.unbind(-1)
    found: Array = torch.stack((x, -z, y), -1).numpy().astype(np.float32)
    return found


def touching(metres: Tensor, skeleton: MotionSkeleton) -> Tensor:
    """Which feet touch the floor: low, and slow over it.

    Args:
        metres: Places (T, J, 3), y up, floor at 0.
        skeleton: Whose joints they are.

    Returns:
        (T, 4) bool in the order of `skeleton.feet`.
    """
    feet = metres[:, list(skeleton.feet)]
    speed = feet[:, :, [0, 2]].diff(dim=0).norm(dim=-1) * skeleton.fps
    speed = torch.cat((speed, speed[-1:]) if len(speed) else (torch.zeros(1, 4),))
    # Ankles are higher above the sole than toes.
    low = metres.new_tensor((2.2, 1.0, 2.2, 1.0)) * STANDING
    return (feet[..., 1] < low) & (speed < _STILL)
