"""Points and pixels of a depth camera, with 4 x 4 poses and 3 x 3 intrinsics.

Pixel centres have whole coordinates. Camera axes: x right, y down, z forward; a pose goes from
camera to world. Sources: ScanNet/ScanNet (SensReader), xuxw98/ESAM (back-projection and the
rescaling of intrinsics).
"""

import torch
from torch import Tensor

# Nearer points are behind the lens for all purposes.
_NEAREST = 0.01
# Pixels: points of the outermost ones must not fall out by rounding.
_ROUNDING = 0.01


def project_points(xyz: Tensor, pose: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Where points appear in an image.

    Args:
        xyz: (P, 3) in world axes, metres.
        pose: (4, 4) from camera to the same world axes.
        intrinsics: (3, 3) or larger.

    Returns:
        Pixels (P, 2), and depths (P,) along the camera's axis; a depth that is not above 0 is of a
        point behind the camera, whose pixel means nothing.
    """
    camera = (xyz - pose[:3, 3]) @ torch.linalg.inv(pose[:3, :3]).T
    depth = camera[:, 2]
    focal = torch.stack((intrinsics[0, 0], intrinsics[1, 1]))
    away = torch.where(depth.abs() < _NEAREST, torch.full_like(depth, _NEAREST), depth)
    return camera[:, :2] / away.unsqueeze(1) * focal + intrinsics[:2, 2], depth


def in_view(pixels: Tensor, depth: Tensor, width: int, height: int) -> Tensor:
    """Which projected points lie in front of the camera and inside its image, (P,)."""
    last = pixels.new_tensor([width - 1, height - 1]) + _ROUNDING
    return (depth > _NEAREST) & ((pixels >= -_ROUNDING) & (pixels <= last)).all(-1)


def unproject(pixels: Tensor, depth: Tensor, pose: Tensor, intrinsics: Tensor) -> Tensor:
    """Points (P, 3) in world axes of pixels at known depths.

    Args:
        pixels: (P, 2).
        depth: (P,) along the camera's axis, metres.
        pose: (4, 4) from camera to world.
        intrinsics: (3, 3) or larger.
    """
    focal = torch.stack((intrinsics[0, 0], intrinsics[1, 1]))
    flat = (pixels - intrinsics[:2, 2]) / focal
    camera = torch.cat((flat, torch.ones_like(flat[:, :1])), 1) * depth.unsqueeze(1)
    return camera @ pose[:3, :3].T + pose[:3, 3]


def rescaled_intrinsics(
    intrinsics: Tensor, size: tuple[int, int], new_size: tuple[int, int]
) -> Tensor:
    """Intrinsics of a resized image, as ScanNet's tools compute them.

    The image keeps its aspect to a whole pixel: 1296 x 968 becomes 640 x 480 by way of a width of
    642.

    Args:
        intrinsics: (3, 3) or larger, of the original.
        size: Its width and height.
        new_size: Width and height afterwards.
    """
    (width, height), (new_width, new_height) = size, new_size
    # Upstream scales fx by a floored width: what fits at the new height.
    fitted = int(new_height * width // height)
    out = intrinsics.clone()
    out[0, 0] *= fitted / width
    out[1, 1] *= new_height / height
    out[0, 2] *= (new_width - 1) / (width - 1)
    out[1, 2] *= (new_height - 1) / (height - 1)
    return out


def seen_points(pixels: Tensor, depth: Tensor, image: Tensor) -> Tensor:
    """Which projected points are the surface that the camera saw, (P,).

    A point counts if its depth differs by at most 5 cm, or 4 % where that is more, from the depth
    image at its pixel.

    Args:
        pixels: (P, 2); those outside the image are never seen.
        depth: (P,) along the camera's axis, metres.
        image: Depth image (H, W), metres; 0 where nothing was measured.
    """
    height, width = image.shape
    column, row = pixels.round().nan_to_num(-1, -1, -1).clamp(-1, 1e6).long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    measured = image[row.clamp(0, height - 1), column.clamp(0, width - 1)].to(depth)
    near = (depth - measured).abs() <= (0.04 * depth).clamp(min=0.05)
    return inside & (measured > 0) & near
