"""Errors of predicted poses, frame by frame, as the literature on Human3.6M defines them.

Poses are (N, J, 3) of N frames, root-relative, millimetres; distances keep that unit. Numbers are
computed in the type given: evaluation gives float64.
"""

import torch
from torch import Tensor
from torch.linalg import vector_norm


def joint_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Distance of each joint, (N, J)."""
    length: Tensor = vector_norm(prediction - target, dim=-1)
    return length


def aligned(prediction: Tensor, target: Tensor) -> Tensor:
    """Predictions after the best scale, rotation and shift of each frame (Procrustes), (N, J, 3).

    A reflection is no rotation: a mirrored body stays wrong.
    """
    centre_p, centre_t = (x.mean(1, keepdim=True) for x in (prediction, target))
    p, t = prediction - centre_p, target - centre_t
    size_p, size_t = (x.square().sum((1, 2), keepdim=True).sqrt() for x in (p, t))
    tiny = torch.finfo(p.dtype).tiny
    u, s, vh = torch.linalg.svd((t / size_t.clamp(min=tiny)).mT @ (p / size_p.clamp(min=tiny)))
    sign = torch.ones_like(s)
    sign[:, -1] = torch.sign(torch.linalg.det(u @ vh))
    rotation = (u * sign.unsqueeze(1)) @ vh
    scale = (s * sign).sum(1).view(-1, 1, 1) * size_t / size_p.clamp(min=tiny)
    turned: Tensor = scale * p @ rotation.mT + centre_t
    return turned


def scaled(prediction: Tensor, target: Tensor) -> Tensor:
    """Predictions after the best scale of each frame, (N, J, 3)."""
    product = (prediction * target).sum((1, 2), keepdim=True)
    return prediction * product / prediction.square().sum((1, 2), keepdim=True)


def velocity_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Distance of the steps from each frame to the next, (N - 1,), mean over joints; per frame."""
    return joint_errors(prediction.diff(dim=0), target.diff(dim=0)).mean(1)


def acceleration_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Distance of the second differences at each frame, (N - 2,), mean over joints; per frame^2."""
    return joint_errors(prediction.diff(n=2, dim=0), target.diff(n=2, dim=0)).mean(1)


def bone_lengths(pose: Tensor, bones: tuple[tuple[int, int], ...]) -> Tensor:
    """Lengths of the bones (parent, child), (N, bones)."""
    parents, children = (pose[:, [bone[i] for bone in bones]] for i in (0, 1))
    length: Tensor = vector_norm(children - parents, dim=-1)
    return length
