"""Quaternions (w, x, y, z) and six-dimensional rotations, as the motion features need them."""

import torch
from torch import Tensor

_EPS = 1e-6


def rotation_between(a: Tensor, b: Tensor, guard: bool = True) -> Tensor:
    """The shortest rotation from one direction to another.

    Args:
        a: Directions (..., 3), of any length but 0.
        b: Directions (..., 3).
        guard: Turn by pi about y, or about z where a is along y, between opposite directions;
            without it the result is NaN there, as upstream.

    Returns:
        Unit quaternions (..., 4).
    """
    a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
    w = (a.square().sum(-1) * b.square().sum(-1)).sqrt() + (a * b).sum(-1)
    q = torch.cat((w.unsqueeze(-1), torch.linalg.cross(a, b)), -1)
    size = q.norm(dim=-1, keepdim=True)
    lost = size <= _EPS * a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    found: Tensor = q / size
    if not guard or not lost.any():
        return found
    unit = a / a.norm(dim=-1, keepdim=True).clamp_min(_EPS)
    up = unit.new_tensor((0.0, 1.0, 0.0))
    across = up - unit * unit[..., 1:2]
    across = torch.where(across.norm(dim=-1, keepdim=True) > 0.5, across, up.roll(1))
    axis = across / across.norm(dim=-1, keepdim=True)
    half_turn = torch.cat((torch.zeros_like(size), axis), -1)
    return torch.where(lost, half_turn, found)


def conjugate(q: Tensor) -> Tensor:
    """The inverse of unit quaternions (..., 4)."""
    return torch.cat((q[..., :1], -q[..., 1:]), -1)


def product(q: Tensor, r: Tensor) -> Tensor:
    """Quaternions (..., 4) of first r, then q."""
    w = q[..., :1] * r[..., :1] - (q[..., 1:] * r[..., 1:]).sum(-1, keepdim=True)
    cross = torch.linalg.cross(q[..., 1:], r[..., 1:])
    return torch.cat((w, q[..., :1] * r[..., 1:] + r[..., :1] * q[..., 1:] + cross), -1)


def rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors (..., 3) turned by unit quaternions (..., 4)."""
    axis, v = torch.broadcast_tensors(q[..., 1:], v)  # type: ignore[no-untyped-call]
    t = 2 * torch.linalg.cross(axis, v)
    found: Tensor = v + q[..., :1] * t + torch.linalg.cross(axis, t)
    return found


def six_dim(q: Tensor) -> Tensor:
    """First two columns of the rotation matrices of unit quaternions (..., 4), as (..., 6)."""
    w, x, y, z = q.unbind(-1)
    return torch.stack(
        (
            1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w),
            2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w),
        ),
        -1,
    )  # fmt: skip


def matrix_of(six: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) from (..., 6), made orthogonal from the first column on."""
    x = torch.nn.functional.normalize(six[..., :3], dim=-1)
    z = torch.nn.functional.normalize(torch.linalg.cross(x, six[..., 3:]), dim=-1)
    return torch.stack((x, torch.linalg.cross(z, x), z), -1)


def turned(v: Tensor, angle: Tensor) -> Tensor:
    """Vectors (..., 3) turned about y.

    Args:
        v: Vectors.
        angle: Radians, broadcast against v without its last axis; from +z towards +x.
    """
    cos, sin = angle.cos(), angle.sin()
    x, y, z = v.unbind(-1)
    return torch.stack((x * cos + z * sin, y + 0 * cos, z * cos - x * sin), -1)
