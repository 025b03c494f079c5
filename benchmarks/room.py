"""A frame of a depth camera in a furnished room, by casting rays at boxes.

Points of a real frame lie on surfaces, dense near the camera and thin far away. How many neighbours
a voxel has decides what sparse convolution costs, so random points in space would mislead.
"""

import torch
from torch import Tensor

# ScanNet's depth camera, 640 x 480.
_FOCAL, _WIDTH, _HEIGHT = 577.87, 640, 480
_ROOM = ((-2.4, -2.2, 0.0), (2.4, 2.2, 2.6))
_EYE, _PITCH = (-1.9, -1.7, 1.5), -0.35
_OBJECTS = 14


def room_frame(points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points of one frame.

    Args:
        points: Number of random pixels.
        seed: Of the furniture, the pixels and the noise.

    Returns:
        Positions (P, 3) in metres and colours (P, 3).
    """
    generator = torch.Generator().manual_seed(seed)
    size = 0.25 + 0.7 * torch.rand(_OBJECTS, 3, generator=generator)
    low = torch.rand(_OBJECTS, 3, generator=generator) * torch.tensor([3.0, 3.0, 0.0])
    low = low + torch.tensor([-1.2, -1.2, 0.0])
    rays, eye = _rays(points, generator), torch.tensor(_EYE)
    near, _ = _slabs(eye, rays, low, low + size)
    _, walls = _slabs(eye, rays, *(torch.tensor([corner]) for corner in _ROOM))
    distance = torch.minimum(near.amin(1), walls[:, 0])
    noise = 0.0012 + 0.0019 * (distance - 0.4).square()
    distance = distance + noise * torch.randn(points, generator=generator)
    return eye + rays * distance[:, None], torch.rand(points, 3, generator=generator)


def _rays(count: int, generator: torch.Generator) -> Tensor:
    """Directions through random pixels, camera in a corner, looking along the diagonal."""
    u = torch.rand(count, generator=generator) * _WIDTH - _WIDTH / 2
    v = torch.rand(count, generator=generator) * _HEIGHT - _HEIGHT / 2
    pitch = torch.tensor(_PITCH)
    flat = torch.tensor([0.7071, 0.7071, 0.0])
    forward = pitch.cos() * flat + pitch.sin() * torch.tensor([0.0, 0.0, 1.0])
    right = torch.tensor([0.7071, -0.7071, 0.0])
    down = torch.linalg.cross(forward, right)
    rays: Tensor = forward + u[:, None] / _FOCAL * right + v[:, None] / _FOCAL * down
    return rays


def _slabs(eye: Tensor, rays: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays (R, 3) enter and leave boxes (N, 3), (R, N); entering is infinite for a miss."""
    steps = torch.stack((low - eye, high - eye))[:, None] / rays[:, None]
    enter, leave = steps.amin(0).amax(-1), steps.amax(0).amin(-1)
    hit = (enter < leave) & (enter > 0)
    return enter.where(hit, torch.inf), leave
