"""Analytic ray casting of rooms: depth, instance, part, normal and surface coordinates per pixel.

Every solid is a unit box, cylinder or ball after an affine map, under which the ray's parameter
does not change; rays have z = 1 in camera axes, so the parameter is the depth. A solid is tested
only where its corners project to.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.scannet.furniture import Part
from datamodules.scannet.rooms import Room, Thing

Array = npt.NDArray[Any]

SHELL = 6
_NEAR = 0.05


@dataclass(frozen=True)
class Hits:
    """What the rays of an image of H rows and W columns met first.

    Args:
        depth: (H, W) along the camera's axis, metres.
        thing: (H, W) place in the room's list.
        part: (H, W) number of the solid, counted over the room; walls and floor come first.
        normal: (H, W, 3) unit, in room axes.
        surface: (H, W, 3) where on the thing, in its own axes, metres.
    """

    depth: Array
    thing: Array
    part: Array
    normal: Array
    surface: Array


def cast(room: Room, pose: Array, intrinsics: Array, width: int, height: int) -> Hits:
    """Looks at a room.

    Args:
        room: The room; the camera must be inside.
        pose: (4, 4) from camera (x right, y down, z forward) to room axes.
        intrinsics: (3, 3); pixel centres have integer coordinates.
        width: Of the image.
        height: Of the image.
    """
    origin = pose[:3, 3]
    rays = camera_rays(intrinsics, width, height) @ pose[:3, :3].T
    depth, part = _shell(room, origin, rays)
    solids = [(k, thing, p) for k, thing in enumerate(room.things) for p in thing.parts]
    for number, (_, thing, solid) in enumerate(solids, SHELL):
        rows, columns = _window(thing, solid, pose, intrinsics, width, height)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        near = _solid(thing, solid, origin, rays[rows, columns])
        closer = near < depth[rows, columns]
        depth[rows, columns][closer] = near[closer]
        part[rows, columns][closer] = number
    things = np.array([*range(SHELL), *(k for k, _, _ in solids)])
    hit = origin + depth[..., None] * rays
    normal, surface = _surfaces(room, [(t, p) for _, t, p in solids], part, hit)
    return Hits(depth, things[part], part, normal, surface)


def camera_rays(intrinsics: Array, width: int, height: int) -> Array:
    """Directions (H, W, 3) in camera axes, with z = 1."""
    u = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    v = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    x, y = np.meshgrid(u, v)
    return np.stack((x, y, np.ones_like(x)), -1)


def _shell(room: Room, origin: Array, rays: Array) -> tuple[Array, Array]:
    """Depth and number of the wall that each ray leaves the room's box through."""
    size = np.array(room.size)
    with np.errstate(divide="ignore"):
        t = np.where(rays > 0, size - origin, -origin) / rays
    t[rays == 0] = np.inf
    axis = t.argmin(-1)
    depth = np.take_along_axis(t, axis[..., None], -1)[..., 0]
    forward = np.take_along_axis(rays, axis[..., None], -1)[..., 0] > 0
    return depth, 2 * axis + forward


def _window(
    thing: Thing, part: Part, pose: Array, intrinsics: Array, width: int, height: int
) -> tuple[slice, slice]:
    """Rows and columns of the image that a solid can appear in."""
    signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T
    corners = (np.array(part.centre) + signs * part.half) @ _turn(thing.yaw).T + thing.position
    x, y, z = ((corners - pose[:3, 3]) @ pose[:3, :3]).T
    if z.max() < _NEAR:
        return slice(0, 0), slice(0, 0)
    if z.min() < _NEAR:
        return slice(0, height), slice(0, width)
    u = intrinsics[0, 0] * x / z + intrinsics[0, 2]
    v = intrinsics[1, 1] * y / z + intrinsics[1, 2]
    return (
        slice(max(int(v.min()), 0), max(min(int(v.max()) + 2, height), 0)),
        slice(max(int(u.min()), 0), max(min(int(u.max()) + 2, width), 0)),
    )


def _solid(thing: Thing, part: Part, origin: Array, rays: Array) -> Array:
    """Depth at which rays enter a solid; infinity where they miss it."""
    turn = _turn(thing.yaw)
    half = np.array(part.half)
    o = ((origin - thing.position) @ turn - part.centre) / half
    # Axis by axis: numpy is several times slower where the last axis is short.
    x, y, z = rays[..., 0], rays[..., 1], rays[..., 2]
    d = [(turn[0, k] * x + turn[1, k] * y) / half[k] for k in range(2)] + [z / half[2]]
    with np.errstate(divide="ignore", invalid="ignore"):
        if part.shape == "ellipsoid":
            near, far = _roots(d, o)
        elif part.shape == "cylinder":
            near, far = _roots(d[:2], o[:2])
            low, high = _slabs(d[2:], o[2:])
            near, far = np.maximum(near, low), np.minimum(far, high)
        else:
            near, far = _slabs(d, o)
    return np.where((near < far) & (near > _NEAR), near, np.inf)


def _slabs(d: list[Array], o: Array) -> tuple[Array, Array]:
    """Entry and exit of a box from -1 to 1 along every given axis."""
    near, far = np.full_like(d[0], -np.inf), np.full_like(d[0], np.inf)
    for along, start in zip(d, o, strict=True):
        inverse = 1 / np.where(along == 0, 1e-12, along)  # Never 0 / 0.
        a, b = (-1 - start) * inverse, (1 - start) * inverse
        near, far = np.maximum(near, np.minimum(a, b)), np.minimum(far, np.maximum(a, b))
    return near, far


def _roots(d: list[Array], o: Array) -> tuple[Array, Array]:
    """Entry and exit of the unit ball over the given axes; NaN where a ray misses."""
    a = np.sum([along * along for along in d], 0)
    b = np.sum([along * start for along, start in zip(d, o, strict=True)], 0)
    root = np.sqrt(b * b - a * (o @ o - 1))
    return (-b - root) / a, (-b + root) / a


def _surfaces(
    room: Room, solids: list[tuple[Thing, Part]], part: Array, hit: Array
) -> tuple[Array, Array]:
    """Normals and coordinates on the thing at every hit."""
    normal, surface = np.zeros_like(hit), hit.copy()
    inward = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], float)
    shell = part < SHELL
    normal[shell] = inward[part[shell]]
    order = np.argsort(part, axis=None, kind="stable")
    numbers, starts = np.unique(part.ravel()[order], return_index=True)
    flat_normal, flat_surface = normal.reshape(-1, 3), surface.reshape(-1, 3)
    for number, where in zip(numbers, np.split(order, starts[1:]), strict=True):
        if number < SHELL:
            continue
        thing, solid = solids[number - SHELL]
        turn = _turn(thing.yaw)
        own = (flat_surface[where] - thing.position) @ turn
        flat_normal[where] = _normals(solid, (own - solid.centre) / solid.half) @ turn.T
        flat_surface[where] = own
    return normal, surface


def _normals(part: Part, unit: Array) -> Array:
    """Unit normals at points of a solid's surface, in its own axes.

    Args:
        part: The solid.
        unit: (N, 3) in its axes, scaled so that it reaches from -1 to 1.
    """
    flat: Array = np.sign(unit) * (np.abs(unit) == np.abs(unit).max(-1, keepdims=True))
    if part.shape == "box":
        return flat
    around = unit / np.array(part.half)
    if part.shape == "cylinder":
        around[:, 2] = 0
        cap = np.abs(unit[:, 2]) > 1 - 1e-6
        around[cap] = np.sign(unit[cap]) * (0, 0, 1)
    length = np.linalg.norm(around, axis=-1, keepdims=True)
    unit_length: Array = around / np.maximum(length, 1e-12)
    return unit_length


def _turn(yaw: float) -> Array:
    """Rotation about z, from a thing's axes to the room's."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)])
