"""Frames of the embedded rooms: where the camera stands, colours, and a sensor's depth.

Colour tells the class of a thing but not which thing of the class it is: all chairs of a room share
one colour and pattern. Depth has the noise of a structured-light sensor, and holes where surfaces
turn away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.scannet.ray_casting import SHELL, Hits, cast
from datamodules.scannet.rooms import Room

Array = npt.NDArray[Any]

WIDTH, HEIGHT = 640, 480
# Of ScanNet's depth camera at 640 x 480, which the SV files do not carry (xuxw98/ESAM).
INTRINSICS = np.array([(577.870605, 0, 319.5), (0, 577.870605, 239.5), (0, 0, 1)])
# A view shows this many things of at least this part of its pixels, walls and floor not counted.
_THINGS, _PART = 5, 0.02
_GLANCE = 10
_LIGHTS = np.array([(0.35, 0.25, 0.9), (-0.5, 0.1, 0.45), (0.1, -0.6, 0.3)])
_STRENGTHS = np.array([0.42, 0.2, 0.16])


@dataclass(frozen=True)
class Frame:
    """What the two cameras of a sensor recorded, H = 480 and W = 640, with the truth.

    Args:
        color: (H, W, 3) uint8.
        depth: (H, W) uint16, millimetres; 0 where there is none.
        pose: (4, 4) from camera to room axes.
        hits: What was seen.
    """

    color: Array
    depth: Array
    pose: Array
    hits: Hits


def record(room: Room, pose: Array, rng: np.random.Generator) -> Frame:
    """Records one frame.

    Args:
        room: What is looked at.
        pose: Of the camera, (4, 4), to room axes.
        rng: Decides the noise.
    """
    hits = cast(room, pose, INTRINSICS, WIDTH, HEIGHT)
    return Frame(colored(room, hits, rng), sensed(hits, pose, rng), pose, hits)


def viewpoints(room: Room, count: int, rng: np.random.Generator) -> list[Array]:
    """Poses of cameras that see enough, at most `count` of them.

    Args:
        room: What is looked at.
        count: How many are wanted; a bare room yields fewer.
        rng: Decides where.
    """
    found: list[Array] = []
    small = INTRINSICS.copy()
    small[:2] /= _GLANCE
    for _ in range(12 * count):
        if len(found) == count:
            break
        pose = _somewhere(room, rng)
        if pose is None:
            continue
        hits = cast(room, pose, small, WIDTH // _GLANCE, HEIGHT // _GLANCE)
        if float(np.median(hits.depth)) < 1.0:
            continue  # Its nose is in the bookshelf.
        labels = np.array([thing.label for thing in room.things])
        pixels = np.bincount(hits.thing.ravel(), minlength=len(labels))
        large = (pixels >= _PART * hits.thing.size) & (labels > 0)
        large[:SHELL] = False
        if large.sum() >= _THINGS:
            found.append(pose)
    return found


def _somewhere(room: Room, rng: np.random.Generator) -> Array | None:
    """A pose at eye level that looks down and across the room; None if furniture is in the way."""
    width, depth, _ = room.size
    x, y = rng.uniform((0.3, 0.3), (width - 0.3, depth - 0.3)).tolist()
    height, pitch = float(rng.uniform(1.2, 1.7)), np.deg2rad(float(rng.uniform(-35, -10)))
    target = np.array([width, depth]) * rng.uniform(0.25, 0.75, 2)
    if not room.free(x, y, 0.2) or np.hypot(*(target - (x, y))) < 1.2:
        return None
    yaw = np.arctan2(target[1] - y, target[0] - x)
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    roll = float(rng.normal(0, 0.03))
    down = np.cross(forward, right)
    right, down = (
        np.cos(roll) * right + np.sin(roll) * down,
        np.cos(roll) * down - np.sin(roll) * right,
    )
    pose = np.eye(4)
    pose[:3] = np.stack((right, down, forward, np.array([x, y, height])), -1)
    return pose


def colored(room: Room, hits: Hits, rng: np.random.Generator) -> Array:
    """The colour image: pattern, Lambert's light from above, 2 % noise.

    Args:
        room: Whose things are seen.
        hits: Where.
        rng: Decides the noise.

    Returns:
        (H, W, 3) uint8.
    """
    tones = [1.0] * SHELL + [part.tone for thing in room.things for part in thing.parts]
    base = np.array([thing.color for thing in room.things])[hits.thing]
    light = 0.42 + np.clip(hits.normal @ _LIGHTS.T, 0, None) @ _STRENGTHS
    light *= np.array(tones)[hits.part]
    for name in sorted({thing.texture for thing in room.things} - {"plain"}):
        with_it = np.array([thing.texture == name for thing in room.things])
        where = with_it[hits.thing]
        light[where] *= _pattern(name, hits.surface[where], hits.normal[where])
    noise = rng.normal(1, 0.02, (*light.shape, 1))
    image = base * light[..., None] * noise
    pixels: Array = (image.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def sensed(hits: Hits, pose: Array, rng: np.random.Generator) -> Array:
    """The depth image of a structured-light sensor.

    Noise grows with the square of the distance (Nguyen et al., 2012); at grazing angles most pixels
    are lost.

    Args:
        hits: What is seen.
        pose: Of the camera.
        rng: Decides the noise.

    Returns:
        (H, W) uint16, millimetres; 0 where there is none.
    """
    sigma = 0.0012 + 0.0019 * (hits.depth - 0.4) ** 2
    depth = hits.depth + sigma * rng.standard_normal(hits.depth.shape)
    u = np.arange(hits.depth.shape[1]) - INTRINSICS[0, 2]
    v = np.arange(hits.depth.shape[0]) - INTRINSICS[1, 2]
    ray = np.stack((*np.meshgrid(u, v), np.full(depth.shape, INTRINSICS[0, 0])), -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    facing = np.abs((ray * (hits.normal @ pose[:3, :3])).sum(-1))
    lost = rng.random(depth.shape) < np.where(facing < 0.15, 0.7, 0.005)
    depth[lost | (hits.depth < 0.3)] = 0
    millimetres: Array = (depth * 1000).round().clip(0, 65535).astype(np.uint16)
    return millimetres


def _pattern(name: str, surface: Array, normal: Array) -> Array:
    """Brightness of a pattern at points of a thing's own axes, about 1."""
    # The two coordinates along the surface; which they are follows the normal's largest axis.
    axis = np.abs(normal).argmax(-1)[:, None]
    a = np.take_along_axis(surface, (axis + 1) % 3, -1)[:, 0]
    b = np.take_along_axis(surface, (axis + 2) % 3, -1)[:, 0]
    light: Array = 1 + 0.24 * (_hashed(np.floor(a * 45), np.floor(b * 45)) - 0.5)
    if name == "stripes":
        light = 1 + 0.16 * np.sign(np.sin(a * 40))
    elif name == "checker":
        light = 1 + 0.12 * ((np.floor(a * 4) + np.floor(b * 4)) % 2 * 2 - 1)
    elif name == "wood":
        grain = np.sin(a * 55 + 2.5 * np.sin(b * 3) + 4 * _hashed(np.floor(a * 9), 0 * b))
        light = 1 + 0.07 * grain + 0.08 * (_hashed(np.floor(a * 9), 0 * b) - 0.5)
    return light


def _hashed(a: Array, b: Array) -> Array:
    """A number from 0 to 1 for each pair of whole numbers."""
    value = np.sin(a * 12.9898 + b * 78.233) * 43758.5453
    fraction: Array = value - np.floor(value)
    return fraction
