"""Procedural persons before four cameras: the embedded re-identification set's pictures.

A person is clothes, hair, build and bags, drawn with Pillow; a camera is a place, a light, a tint,
a sharpness and a height. The same person looks different from camera to camera and different
persons alike in one camera, so neighbours in pixel space are mostly wrong.
"""

import colorsys
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Facing = Literal["front", "back", "left", "right"]

SIZE = (64, 32)
"""(height, width) of a picture in pixels."""

_SCALE = 3  # Drawn larger, then reduced: smooth edges.


@dataclass(frozen=True)
class Person:
    """What stays the same from picture to picture; lengths in heights of a person."""

    skin: Colour
    hair: Colour
    hair_style: int
    top: Colour
    trim: Colour
    pattern: int
    long_sleeves: bool
    legs: Colour
    leg_style: int
    shoes: Colour
    bag: int
    bag_colour: Colour
    hat: bool
    build: float
    height: float


@dataclass(frozen=True)
class Camera:
    """What a place does to every picture taken there."""

    gains: tuple[float, float, float]
    gamma: float
    blur: float
    noise: float
    shear: float
    wall: Colour
    floor: Colour
    horizon: float
    clutter: int
    facings: tuple[float, float, float, float]


CAMERAS = (
    Camera((1.0, 0.97, 0.9), 0.95, 0.3, 4, 0.00, (150, 140, 125), (120, 118, 110), 0.60, 1,
           (0.55, 0.15, 0.15, 0.15)),
    Camera((0.82, 0.96, 1.15), 1.1, 0.7, 5, 0.06, (95, 110, 130), (70, 82, 95), 0.42, 2,
           (0.15, 0.55, 0.15, 0.15)),
    Camera((1.15, 1.0, 0.78), 0.9, 0.5, 4, -0.07, (175, 160, 120), (140, 110, 80), 0.72, 3,
           (0.1, 0.1, 0.4, 0.4)),
    Camera((0.88, 1.05, 0.88), 1.2, 0.8, 7, 0.03, (80, 105, 75), (95, 120, 85), 0.30, 4,
           (0.25, 0.25, 0.25, 0.25)),
)  # fmt: skip


def make_person(random: np.random.Generator) -> Person:
    """A person at random; sober colours are the most frequent, as in streets."""
    return Person(
        skin=_shade((224, 180, 150), random.uniform(0.45, 1.05)),
        hair=_shade(((40, 30, 25), (110, 75, 40), (190, 160, 90))[random.choice(3)], 1.0),
        hair_style=int(random.integers(4)),
        top=_cloth(random),
        trim=_cloth(random),
        pattern=int(random.integers(7)),
        long_sleeves=bool(random.random() < 0.6),
        legs=_cloth(random),
        leg_style=int(random.choice(4, p=[0.5, 0.2, 0.15, 0.15])),
        shoes=_cloth(random),
        bag=int(random.choice(4, p=[0.45, 0.2, 0.2, 0.15])),
        bag_colour=_cloth(random),
        hat=bool(random.random() < 0.15),
        build=random.uniform(0.85, 1.25),
        height=random.uniform(0.88, 1.04),
    )


def photograph(person: Person | None, camera: Camera, random: np.random.Generator) -> Image.Image:
    """A picture of a person, or of the place alone.

    Args:
        person: Who; null for a detection of nobody.
        camera: Where.
        random: Pose, place in the box, light and passers-by come from it.
    """
    height, width = SIZE[0] * _SCALE, SIZE[1] * _SCALE
    image = _place(camera, width, height, random)
    if person is not None:
        facing: Facing = ("front", "back", "left", "right")[random.choice(4, p=camera.facings)]
        _draw(image, person, facing, random)
    if random.random() < 0.2:
        _cover(image, random)
    shear = camera.shear + random.normal(0, 0.02)
    image = image.transform(
        image.size, Image.Transform.AFFINE, (1, shear, -shear * height / 2, 0, 1, 0),
        Image.Resampling.BILINEAR, fillcolor=camera.wall,
    )  # fmt: skip
    image = image.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX)
    image = image.filter(ImageFilter.GaussianBlur(camera.blur * random.uniform(0.7, 1.4)))
    return _expose(image, camera, random)


def _expose(image: Image.Image, camera: Camera, random: np.random.Generator) -> Image.Image:
    light = np.asarray(image, np.float32) / 255
    gains = np.array(camera.gains, np.float32) * random.uniform(0.75, 1.2)
    light = (light * gains).clip(0, 1) ** camera.gamma
    light += random.normal(0, camera.noise / 255, light.shape).astype(np.float32)
    return Image.fromarray((light.clip(0, 1) * 255).astype(np.uint8))


def _place(camera: Camera, width: int, height: int, random: np.random.Generator) -> Image.Image:
    """Wall, floor and what stands about, the same in every picture but for the box's shift."""
    image = Image.new("RGB", (width, height), camera.wall)
    draw = ImageDraw.Draw(image)
    shift = random.uniform(-0.5, 0.5) * width
    horizon = (camera.horizon + random.normal(0, 0.05)) * height
    draw.rectangle((0, horizon, width, height), fill=camera.floor)
    things = np.random.default_rng(camera.clutter)
    for _ in range(12):
        x, w = things.uniform(-width, 2 * width) + shift, things.uniform(4, width / 2)
        top, foot = things.uniform(-0.1, 0.5) * height, horizon + things.uniform(-5, 20)
        tone = _shade(camera.wall, things.uniform(0.4, 1.5))
        draw.rectangle((x, top, x + w, max(foot, top + 5)), fill=tone)
    for _ in range(8):
        y = things.uniform(horizon, height + 40)
        draw.line((0, y, width, y + things.uniform(-30, 30)), _shade(camera.floor, 0.75), 3)
    return image


def _draw(image: Image.Image, who: Person, facing: Facing, random: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    size = image.height * 0.9 * who.height * random.uniform(0.88, 1.1)
    middle = image.width * random.normal(0.5, 0.07)
    top = (image.height - size) / 2 + image.height * random.normal(0, 0.035)
    side = facing in ("left", "right")
    turn = -1 if facing == "left" else 1
    half = 0.125 * size * who.build * (0.62 if side else 1.0)
    stride = random.uniform(-1, 1) * (0.14 if side else 0.05) * size

    def y(part: float) -> float:
        return top + part * size

    def limb(points: list[tuple[float, float]], colour: Colour, thick: float) -> None:
        draw.line(points, colour, max(int(thick * size), 2), joint="curve")

    if who.bag == 1 and facing == "front":  # The straps alone are seen, later.
        draw.rectangle((middle - half * 1.15, y(0.2), middle + half * 1.15, y(0.4)), who.bag_colour)
    # Legs, the farther one first.
    hip, knee, foot = y(0.5), y(0.73), y(0.96)
    short = who.leg_style == 1
    for sign in (-1, 1):
        x = middle + sign * half * (0.2 if side else 0.5)
        ankle = x + sign * stride
        bend = (x + ankle) / 2 + (turn * 0.02 * size if side else 0)
        limb([(x, hip), (bend, knee), (ankle, foot)], who.skin if short else who.legs, 0.085)
        if short:
            limb([(x, hip), (bend, knee - 0.03 * size)], who.legs, 0.1)
        draw.ellipse(
            (ankle - 0.05 * size + turn * side * 0.02 * size, foot - 0.02 * size,
             ankle + 0.05 * size + turn * side * 0.02 * size, foot + 0.03 * size), who.shoes,
        )  # fmt: skip
    if who.leg_style == 2:
        hem = half * 1.25
        draw.polygon([(middle - half * 0.9, hip - 0.03 * size), (middle + half * 0.9, hip),
                      (middle + hem, knee), (middle - hem, knee)], who.legs)  # fmt: skip
    # Trunk.
    hem_of_top = 0.62 if who.leg_style == 3 else 0.53
    box = (middle - half, y(0.17), middle + half, y(hem_of_top))
    _cloth_box(image, box, who, facing)
    # Arms swing against the legs.
    for sign in (-1, 1):
        shoulder = middle + sign * half * (0.1 if side else 1.0)
        hand = shoulder - sign * stride * 0.9 + (0 if side else sign * 0.03 * size)
        elbow = (shoulder + hand) / 2
        sleeve = _shade(who.top, 0.85)
        limb([(shoulder, y(0.2)), (elbow, y(0.34))], sleeve, 0.06)
        limb([(elbow, y(0.34)), (hand, y(0.47))], sleeve if who.long_sleeves else who.skin, 0.05)
        if side:
            break
    _bag(draw, who, facing, middle, half, size, top)
    _head(draw, who, facing, middle + (turn * 0.02 * size if side else 0), size, top)


def _cloth_box(
    image: Image.Image, box: tuple[float, float, float, float], who: Person, facing: Facing
) -> None:
    """The top with its pattern; a print is on the chest alone, a seam runs down the front."""
    left, upper, right, lower = (int(v) for v in box)
    width, height = max(right - left, 2), max(lower - upper, 2)
    cloth = Image.new("RGB", (width, height), who.top)
    draw = ImageDraw.Draw(cloth)
    step = max(height // 7, 2)
    if who.pattern in (1, 3):
        for row in range(0, height, 2 * step):
            draw.rectangle((0, row, width, row + step - 1), fill=who.trim)
    if who.pattern in (2, 3):
        for column in range(0, width, 2 * step):
            draw.rectangle((column, 0, column + step // 2, height), fill=who.trim)
    if who.pattern == 4:
        draw.rectangle((0, height // 2, width, height), fill=who.trim)
    if who.pattern == 5 and facing == "front":
        draw.ellipse((width * 0.25, height * 0.2, width * 0.75, height * 0.55), who.trim)
    if who.pattern == 6 and facing != "back":
        draw.rectangle((width * 0.42, 0, width * 0.6, height), fill=who.trim)
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), width // 4, 255)
    image.paste(cloth, (left, upper), mask)


def _bag(
    draw: ImageDraw.ImageDraw, who: Person, facing: Facing, x: float, half: float, size: float,
    top: float,
) -> None:  # fmt: skip
    colour = who.bag_colour
    if who.bag == 1:
        if facing == "back":
            box = (x - half * 0.75, top + 0.2 * size, x + half * 0.75, top + 0.42 * size)
            draw.rounded_rectangle(box, 6, colour)
        elif facing == "front":
            for sign in (-1, 1):
                a = (x + sign * half * 0.6, top + 0.17 * size)
                draw.line((*a, a[0], top + 0.38 * size), colour, max(int(0.02 * size), 2))
        else:
            behind = -1 if facing == "right" else 1
            bx, by, r = x + behind * half * 1.2, top + 0.3 * size, 0.09 * size
            draw.rounded_rectangle((bx - r / 1.5, by - r, bx + r / 1.5, by + r), 5, colour)
    elif who.bag == 2:
        flip = -1 if facing == "back" else 1  # The same shoulder, seen from behind.
        draw.line((x - flip * half, top + 0.18 * size, x + flip * half, top + 0.5 * size), colour,
                  max(int(0.02 * size), 2))  # fmt: skip
        bx = x + flip * half
        box4 = (bx - 0.07 * size, top + 0.47 * size, bx + 0.07 * size, top + 0.6 * size)
        draw.rectangle(box4, colour)
    elif who.bag == 3:
        flip = 1 if facing in ("back", "right") else -1
        bx = x + flip * half * 1.3
        box4 = (bx - 0.06 * size, top + 0.5 * size, bx + 0.06 * size, top + 0.66 * size)
        draw.rectangle(box4, colour)


def _head(
    draw: ImageDraw.ImageDraw, who: Person, facing: Facing, x: float, size: float, top: float
) -> None:
    radius = 0.058 * size
    y = top + 0.1 * size

    def disc(cx: float, cy: float, r: float, colour: Colour) -> None:
        draw.ellipse((cx - r, cy - r * 1.15, cx + r, cy + r * 1.15), colour)

    if who.hair_style == 1:  # Long.
        draw.rectangle((x - radius * 1.15, y, x + radius * 1.15, y + 0.13 * size), who.hair)
    disc(x, y, radius, who.skin)
    if who.hair_style != 3:
        cover = (x - radius * 1.1, y - radius * 1.35, x + radius * 1.1, y + radius * 1.1)
        if facing == "back":
            draw.ellipse(cover, who.hair)
        elif facing == "front":
            draw.pieslice(cover, math.degrees(math.pi), 360, who.hair)
        else:
            draw.pieslice(cover, *((90, 330) if facing == "right" else (210, 450)), who.hair)
    if who.hair_style == 2:  # A bun.
        disc(x, y - radius * 1.4, radius * 0.5, who.hair)
    if who.hat:
        draw.rectangle((x - radius * 1.3, y - radius * 1.4, x + radius * 1.3, y - radius * 0.4),
                       who.trim)  # fmt: skip


def _cover(image: Image.Image, random: np.random.Generator) -> None:
    """Something before the camera: at a side, or before the feet."""
    draw = ImageDraw.Draw(image)
    tone = _shade((128, 128, 128), random.uniform(0.3, 1.4))
    width, height = image.size
    if random.random() < 0.5:
        draw.rectangle((0, height * random.uniform(0.65, 0.85), width, height), fill=tone)
    else:
        edge = width * random.uniform(0.1, 0.3)
        box = (0, 0, edge, height) if random.random() < 0.5 else (width - edge, 0, width, height)
        draw.rectangle(box, fill=tone)


def _cloth(random: np.random.Generator) -> Colour:
    """A colour of clothes: mostly black, grey, blue or beige."""
    if random.random() < 0.5:
        hue, saturation = random.choice([0.08, 0.6, 0.62, 0.0]), random.uniform(0, 0.35)
        value = random.choice([0.15, 0.3, 0.5, 0.9]) * random.uniform(0.8, 1.1)
    else:
        hue, saturation, value = random.uniform(), random.uniform(0.4, 0.9), random.uniform(0.3, 1)
    return _shade(tuple(255 * c for c in colorsys.hsv_to_rgb(hue, saturation, min(value, 1))), 1.0)


def _shade(colour: tuple[float, ...] | npt.NDArray[np.float64], factor: float) -> Colour:
    red, green, blue = (min(max(round(float(c) * factor), 0), 255) for c in colour)
    return red, green, blue
