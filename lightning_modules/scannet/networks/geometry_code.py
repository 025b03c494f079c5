"""Where a point is, as 64 numbers: the geometric code of BiFusion.

    relative:  xyz/d (3) | sin, cos of 2^k pi xyz/d, k = 0..7 (48) | box of the superpoint/d (3)
               | camera rotation 6D (6), centre/d (3) | height above the lowest point/d (1)

with d the diagonal of the frame. The reference (Xin200203/3D_Reconstruction) has the same order in
metres, with the height as it is: `reference`. P points of B samples lie one after the other.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.scannet.networks.superpoint_pooling import pooled

GEOMETRY_CHANNELS = 64
_OCTAVES = 8

GeometryMode = Literal["relative", "reference"]


def geometry_code(
    xyz: Tensor,
    superpoint: Tensor,
    sample: Tensor,
    pose: Tensor,
    mode: GeometryMode = "relative",
) -> Tensor:
    """Codes (P, 64) of points before augmentation.

    Args:
        xyz: Metres, in the world that `pose` leads to, (P, 3).
        superpoint: Numbered through the batch, (P,).
        sample: (P,).
        pose: Camera to world, (B, 4, 4).
        mode: `relative`, or metres as in the `reference`.
    """
    count = int(superpoint.amax()) + 1
    box = _extent(xyz, superpoint, count)[1][superpoint]
    low, extent = _extent(xyz, sample, len(pose))
    pose = pose.to(xyz.dtype)
    rotation = pose[:, :3, :2].transpose(1, 2).flatten(1)
    if mode == "reference":
        camera = torch.cat((rotation, pose[:, :3, 3]), 1)
        return assembled(xyz, box, camera[sample], xyz[:, 2:])
    diagonal = extent.norm(dim=1, keepdim=True).clamp(min=1e-3)
    camera = torch.cat((rotation, pose[:, :3, 3] / diagonal), 1)
    d = diagonal[sample]
    height = (xyz[:, 2:] - low[sample, 2:]) / d
    return assembled(xyz / d, box / d, camera[sample], height)


def assembled(xyz: Tensor, box: Tensor, camera: Tensor, height: Tensor) -> Tensor:
    """Concatenates the parts (P, 3), (P, 3), (P, 9), (P, 1) around the sines of `xyz`."""
    angles = [2**k * math.pi * xyz for k in range(_OCTAVES)]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.cat((xyz, *waves, box, camera, height), 1)


def _extent(xyz: Tensor, group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Lowest corners and sides (groups, 3) of the boxes around groups."""
    low, high = pooled(xyz, group, count, "amin"), pooled(xyz, group, count, "amax")
    return low, high - low
