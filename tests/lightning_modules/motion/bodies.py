"""Motions for the tests of what is measured, shown and written."""

import math

import torch
from torch import Tensor

from blocks.geometry.motion_skeleton import HUMANML3D, MotionSkeleton


def standing(skeleton: MotionSkeleton = HUMANML3D) -> Tensor:
    """A rigid body (J, 3) that stands on the floor and faces +z, in the skeleton's unit."""
    places = torch.zeros(skeleton.num_joints, 3)
    directions = skeleton.directions(places)
    directions[:, 0] *= -directions[skeleton.face[0], 0].sign()
    for chain in skeleton.chains:
        for before, joint in zip(chain, chain[1:], strict=False):
            places[joint] = places[before] + 0.2 * directions[joint]
    places[:, 1] -= places[:, 1].min()
    return places * skeleton.metre


def turned(places: Tensor, angle: float) -> Tensor:
    """Places (..., 3) turned about y."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    return places @ turn.T


def walking(frames: int = 30, skeleton: MotionSkeleton = HUMANML3D, speed: float = 1.0) -> Tensor:
    """A body (T, J, 3) that glides and turns at `speed` m/s while its left arm swings."""
    still = standing(skeleton)
    found = []
    for t in range(frames):
        pose = still.clone()
        arm = skeleton.chains[4][2:] if skeleton.name == "humanml3d" else skeleton.chains[4][1:]
        shoulder = pose[arm[0]].clone()
        swing = torch.tensor(0.6 * math.sin(t / 4))
        cos, sin = swing.cos(), swing.sin()
        bend = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
        pose[list(arm)] = (pose[list(arm)] - shoulder) @ bend.T + shoulder
        pose = turned(pose, 0.02 * t)
        pose[:, 2] += speed * skeleton.metre * t / skeleton.fps
        found.append(pose)
    return torch.stack(found)
