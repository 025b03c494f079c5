"""Cameras, image normalisation and the 2.5-D pose of Human3.6M, as functions on tensors.

World and camera axes are right-handed; a camera looks along its z axis, with x to the right and y
down. Sources: facebookresearch/VideoPose3D (cameras), CHUNYUWANG/lcn-pose (depth in pixels),
Walter0807/MotionBERT (normalisation and factor).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# VideoPose3D clamps points far outside the image, where the polynomial of the lens diverges.
_FIELD_OF_VIEW = 1.0
# Human3.6M's 2.5-D depth is scaled as a box of +-1 m around the root is (lcn-pose, gendb.py).
_BOX_MM = 2000.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with a lens.

    Args:
        name: Serial number.
        width: Of the image, pixels.
        height: Of the image, pixels.
        focal: (fx, fy), pixels.
        centre: (cx, cy), pixels.
        radial: Three coefficients of r^2, r^4, r^6; zeros for no distortion.
        tangential: Two coefficients.
    """

    name: str
    width: int
    height: int
    focal: tuple[float, float]
    centre: tuple[float, float]
    radial: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)


def rotate(quaternion: Tensor, points: Tensor) -> Tensor:
    """Points turned by a unit quaternion.

    Args:
        quaternion: (w, x, y, z), shape (4,) or broadcastable with the points' (..., 4).
        points: (..., 3).
    """
    w, axis = quaternion[..., :1], quaternion[..., 1:].expand_as(points)
    turned = torch.linalg.cross(axis, points)
    out: Tensor = points + 2 * (w * turned + torch.linalg.cross(axis, turned))
    return out


def conjugate(quaternion: Tensor) -> Tensor:
    """The opposite rotation of a unit quaternion (w, x, y, z)."""
    return quaternion * quaternion.new_tensor([1.0, -1.0, -1.0, -1.0])


def world_to_camera(points: Tensor, orientation: Tensor, position: Tensor) -> Tensor:
    """Points (..., 3) as the camera sees them.

    Args:
        points: In the world.
        orientation: Quaternion (4,) from camera to world axes.
        position: Of the camera in the world, (3,), unit of the points.
    """
    return rotate(conjugate(orientation), points - position)


def camera_to_world(points: Tensor, orientation: Tensor, position: Tensor) -> Tensor:
    """The inverse of `world_to_camera`."""
    return rotate(orientation, points) + position


def project(points: Tensor, camera: Camera) -> Tensor:
    """Pixels (..., 2) of points (..., 3) in front of the camera, through its lens."""
    flat = (points[..., :2] / points[..., 2:]).clamp(-_FIELD_OF_VIEW, _FIELD_OF_VIEW)
    r2 = flat.square().sum(-1, keepdim=True)
    k1, k2, k3 = camera.radial
    tangential = points.new_tensor(camera.tangential)
    along = (flat * tangential).sum(-1, keepdim=True)
    # As VideoPose3D writes it: each tangential coefficient goes with one axis.
    flat = flat * (1 + r2 * (k1 + r2 * (k2 + r2 * k3)) + along) + tangential * r2
    return flat * points.new_tensor(camera.focal) + points.new_tensor(camera.centre)


def normalise(pixels: Tensor, size: Tensor) -> Tensor:
    """Image points, with or without depth, in units of half the image's width from its centre.

    Args:
        pixels: (..., 2) or (..., 3): x, y and depth in pixels.
        size: Width and height, (2,) for all, or (B, 2) for points (B, ..., 3).
    """
    size = _beside(size, pixels)
    half = size[..., :1] / 2
    xy = (pixels[..., :2] - size / 2) / half
    return torch.cat((xy, pixels[..., 2:] / half), -1)


def denormalise(points: Tensor, size: Tensor) -> Tensor:
    """The inverse of `normalise`: pixels.

    Args:
        points: (..., 2) or (..., 3).
        size: Width and height, (2,) for all, or (B, 2) for points (B, ..., 3).
    """
    size = _beside(size, points)
    half = size[..., :1] / 2
    return torch.cat((points[..., :2] * half + size / 2, points[..., 2:] * half), -1)


def image_pose(pose: Tensor, camera: Camera, root: int = 0) -> Tensor:
    """Human3.6M's `joint3d_image`: pixels, and depth from the root in the root's pixels per mm.

    Args:
        pose: In camera space, (..., J, 3), millimetres.
        camera: Its lens distorts x and y; the original preparation used none.
        root: Joint at depth 0.
    """
    depth = pose[..., root, 2, None]
    ratio = (_BOX_MM * camera.focal[0] / depth + 1) / _BOX_MM
    z = ratio * (pose[..., 2] - depth)
    return torch.cat((project(pose, camera), z.unsqueeze(-1)), -1)


def image_factor(image: Tensor, pose: Tensor, root: int = 0) -> Tensor:
    """Human3.6M's `2.5d_factor`, (...): millimetres per pixel, by least squares on each frame.

    Args:
        image: `image_pose`, (..., J, 3), pixels.
        pose: In camera space, (..., J, 3), millimetres.
        root: Joint from which both are measured.
    """
    a, b = (x - x[..., root : root + 1, :] for x in (image, pose))
    return (a * b).sum((-1, -2)) / a.square().sum((-1, -2))


def _beside(size: Tensor, points: Tensor) -> Tensor:
    """Sizes shaped to broadcast with points, in their type."""
    ones = (1,) * (points.ndim - size.ndim)
    return size.to(points).reshape(*size.shape[:-1], *ones, 2)
