"""Procedural buildings seen from above, from the air and from the street.

A site is a plot of 60 m with a building of boxes, its neighbours, roads and trees. One painter with
one pinhole camera draws all views: farther faces first. A satellite looks straight down, a drone
obliquely from any side, a street camera from 2 m above the ground.
"""

import colorsys
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

SIZE = 64
"""Side of a picture in pixels."""

_SCALE = 3  # Drawn larger, then reduced: smooth edges.
_NEAR = 1.0  # Metres before the lens: what is nearer is not drawn.
_SUN = np.array([0.4, 0.3, 0.85])


class Face(NamedTuple):
    """A flat polygon: corners (N, 3) in metres, z up, their middle, and its colour in the sun."""

    corners: Floats
    middle: Floats
    colour: Colour


@dataclass
class Site:
    """What stands on a plot: the ground from bottom to top, and faces above it."""

    ground: list[Face] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)


class Viewpoint(NamedTuple):
    """Where a camera is: degrees from north, degrees above the horizon, metres from the aim."""

    azimuth: float
    elevation: float
    distance: float
    field_of_view: float = 40.0
    aim_height: float = 5.0


def make_site(random: np.random.Generator) -> Site:
    """A site at random."""
    site = Site()
    grass = _colour(random, (0.2, 0.35), (0.2, 0.45), (0.35, 0.6))
    paving = _colour(random, (0.05, 0.15), (0.0, 0.15), (0.5, 0.75))
    site.ground.append(_flat(np.zeros(2), np.array([200, 200]), 0, grass))
    for _ in range(random.integers(2, 5)):
        spot = random.uniform(-22, 22, 2)
        site.ground.append(
            _flat(
                spot, random.uniform(8, 25, 2), 0, _jitter(random, paving), random.uniform(0, 180)
            )
        )
    roads = float(random.uniform(0, 180))
    for turn in random.choice([0, 90], random.integers(1, 3), replace=False):
        offset = random.choice([-1, 1]) * random.uniform(18, 26)
        angle = np.radians(roads + turn)
        centre = offset * np.array([-np.sin(angle), np.cos(angle)])
        tone = int(random.uniform(70, 110))
        site.ground.append(_flat(centre, np.array([200, 7]), 0, (tone, tone, tone), roads + turn))
        site.ground.append(_flat(centre, np.array([200, 0.6]), 0, (210, 210, 190), roads + turn))
    _build(site, random, (0.0, 0.0), roads, main=True)
    for _ in range(random.integers(1, 4)):
        angle, far = random.uniform(0, 2 * np.pi), random.uniform(24, 32)
        _build(site, random, (far * np.cos(angle), far * np.sin(angle)), roads, main=False)
    for _ in range(random.integers(3, 14)):
        spot = random.uniform(-30, 30, 2)
        if np.abs(spot).max() > 12:
            _plant(site, random, spot)
    return site


def satellite(random: np.random.Generator) -> Viewpoint:
    """North up, straight down."""
    return Viewpoint(180.0, 89.9, random.uniform(84, 92), 38.0, 0.0)


def drone(random: np.random.Generator) -> Viewpoint:
    """From any side, as a drone that circles the building sinks."""
    return Viewpoint(random.uniform(0, 360), random.uniform(35, 60), random.uniform(55, 85))


def street(random: np.random.Generator) -> Viewpoint:
    """From the ground."""
    return Viewpoint(random.uniform(0, 360), random.uniform(1, 4), random.uniform(30, 42), 60.0)


def photograph(site: Site, view: Viewpoint, random: np.random.Generator) -> Image.Image:
    """A picture of a site; weather and the camera's hand come from `random`."""
    side = SIZE * _SCALE
    sky = _colour(random, (0.55, 0.62), (0.1, 0.4), (0.75, 0.95))
    image = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(image)
    eye, axes = _camera(view, random)
    focal = side / 2 / np.tan(np.radians(view.field_of_view / 2))
    distance = [np.linalg.norm(face.middle - eye) for face in site.faces]
    faces = [*site.ground, *(site.faces[i] for i in np.argsort(distance)[::-1])]
    corners = (np.concatenate([face.corners for face in faces]) - eye) @ axes.T
    ends = np.cumsum([len(face.corners) for face in faces])
    for face, own in zip(faces, np.split(corners, ends[:-1]), strict=True):
        seen = _clip(own)
        if len(seen) >= 3:
            points = seen[:, :2] / seen[:, 2:] * focal + side / 2
            draw.polygon([tuple(p) for p in points.tolist()], face.colour)
    image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.7)))
    light = np.asarray(image, np.float32) * random.uniform(0.75, 1.15)
    light = light * random.uniform(0.9, 1.1, 3) + random.normal(0, 5, light.shape)
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))


def _build(
    site: Site, random: np.random.Generator, spot: tuple[float, float], roads: float, main: bool
) -> None:
    """A building of one to four boxes side by side and on top of each other."""
    roof = _colour(random, (0.0, 1.0), (0.05, 0.5), (0.3, 0.85))
    wall = _colour(random, (0.02, 0.14), (0.05, 0.5), (0.45, 0.9))
    turn = roads + float(random.choice([0, 90])) + random.normal(0, 3)
    angle = np.radians(turn)
    along, across = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    size = random.uniform(10, 20, 2) if main else random.uniform(6, 12, 2)
    height = random.uniform(5, 18) if main else random.uniform(3, 10)
    _box(site, np.array(spot), size, 0, height, turn, wall, roof)
    for _ in range(random.integers(1, 4) if main else 0):
        place = np.array(spot) + along * random.uniform(-1, 1) * size[0] * 0.6
        place = place + across * random.uniform(-1, 1) * size[1] * 0.6
        wing = size * random.uniform(0.35, 0.8, 2)
        low = random.uniform(0.5, 1.4) * height
        _box(site, place, wing, 0, low, turn, wall, _jitter(random, roof, 25))
    for _ in range(random.integers(0, 4) if main else 0):  # Machines on the roof.
        place = np.array(spot) + (random.uniform(-0.35, 0.35, 2) * size) @ np.array([along, across])
        tone = _colour(random, (0, 1), (0, 0.3), (0.4, 0.95))
        _box(site, place, random.uniform(1.5, 4, 2), height, height + 1.5, turn, tone, tone)


def _box(
    site: Site, centre: Floats, size: Floats, low: float, high: float, turn: float,
    wall: Colour, roof: Colour,
) -> None:  # fmt: skip
    top = _flat(centre, size, high, roof, turn)
    for a, b in zip(top.corners, np.roll(top.corners, -1, axis=0), strict=True):
        foot_a, foot_b = a * [1, 1, 0] + [0, 0, low], b * [1, 1, 0] + [0, 0, low]
        site.faces.append(_face(np.stack([foot_a, foot_b, b, a]), wall))
        for level in np.arange(low + 2, high - 1, 3.5):  # A row of windows on each floor.
            row = [foot_a * 0.9 + foot_b * 0.1, foot_a * 0.1 + foot_b * 0.9]
            corners = np.stack([row[0], row[1], row[1], row[0]])
            corners[:, 2] = [level, level, level + 1.4, level + 1.4]
            outward = np.append((corners[:, :2].mean(axis=0) - centre), 0.0)
            site.faces.append(_face(corners + 0.02 * outward, (60, 75, 95)))
    site.faces.append(top)


def _plant(site: Site, random: np.random.Generator, spot: Floats) -> None:
    """A tree: three flat crowns, one above the other."""
    green = _colour(random, (0.22, 0.4), (0.4, 0.7), (0.2, 0.45))
    radius, height = random.uniform(1.5, 3.5), random.uniform(3, 8)
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for level, share in ((0.4, 1.0), (0.7, 0.8), (1.0, 0.4)):
        ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(8)], axis=1) * radius * share
        corners = ring + [spot[0], spot[1], level * height]
        site.faces.append(_face(corners, _jitter(random, green, 12)))


def _flat(spot: Floats, size: Floats, z: float, colour: Colour, turn: float = 0.0) -> Face:
    """A level rectangle: its middle and size in metres, its turn in degrees."""
    angle = np.radians(turn)
    along = np.array([np.cos(angle), np.sin(angle), 0]) * size[0] / 2
    across = np.array([-np.sin(angle), np.cos(angle), 0]) * size[1] / 2
    corners = [along + across, across - along, -along - across, along - across]
    return _face(np.array([*spot, z]) + np.stack(corners), colour)


def _camera(view: Viewpoint, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Position, and the axes right, down, forward as rows."""
    azimuth, elevation = np.radians(view.azimuth), np.radians(view.elevation)
    aim = np.array([*random.normal(0, 1.5, 2), view.aim_height])
    away = np.array([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation),
                     np.sin(elevation)])  # fmt: skip
    forward = -away
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return aim + away * view.distance, np.stack([right, np.cross(forward, right), forward])


def _clip(points: Floats) -> Floats:
    """The part of a polygon that lies before the lens."""
    if points[:, 2].min() >= _NEAR:
        return points
    kept: list[Floats] = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            kept.append(a + (b - a) * (_NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


def _face(corners: Floats, colour: Colour) -> Face:
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal /= max(float(np.linalg.norm(normal)), 1e-9)
    lit = _shade(colour, 0.7 + 0.4 * max(float(normal @ _SUN), 0.0))
    return Face(corners, corners.mean(axis=0), lit)


def _colour(
    random: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> Colour:
    hsv = (random.uniform(*hue), random.uniform(*saturation), random.uniform(*value))
    return _shade(tuple(255 * c for c in colorsys.hsv_to_rgb(*hsv)), 1.0)


def _jitter(random: np.random.Generator, colour: Colour, by: float = 15) -> Colour:
    return _shade(tuple(c + random.normal(0, by) for c in colour), 1.0)


def _shade(colour: tuple[float, ...], factor: float) -> Colour:
    red, green, blue = (min(max(round(c * factor), 0), 255) for c in colour)
    return red, green, blue
