"""Furniture of the embedded rooms: assemblies of boxes, cylinders and ellipsoids, by class.

An assembly stands on the origin of its own axes: x to its right, y to its back (the side that
goes to a wall), z up; metres. Each is one instance of a ScanNet200 class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Shape = Literal["box", "cylinder", "ellipsoid"]
Triple = tuple[float, float, float]
Maker = Callable[[float, float, float, np.random.Generator], list["Part"]]


@dataclass(frozen=True)
class Part:
    """One solid.

    Args:
        shape: What it is; a cylinder stands upright.
        centre: Of its bounding box.
        half: Half of its extent along x, y and z.
        tone: Brightness beside the assembly's colour, 1 for the same.
    """

    shape: Shape
    centre: Triple
    half: Triple
    tone: float = 1.0


def box(x: float, y: float, z: float, w: float, d: float, h: float, tone: float = 1.0) -> Part:
    """A box by its centre on the ground plane, its bottom z and its whole extent."""
    return Part("box", (x, y, z + h / 2), (w / 2, d / 2, h / 2), tone)


def disc(x: float, y: float, z: float, radius: float, h: float, tone: float = 1.0) -> Part:
    """An upright cylinder by its axis, its bottom z, radius and height."""
    return Part("cylinder", (x, y, z + h / 2), (radius, radius, h / 2), tone)


def ball(x: float, y: float, z: float, w: float, d: float, h: float, tone: float = 1.0) -> Part:
    """An ellipsoid by its centre and whole extent."""
    return Part("ellipsoid", (x, y, z), (w / 2, d / 2, h / 2), tone)


def _legs(w: float, d: float, h: float, thick: float, tone: float = 0.8) -> list[Part]:
    x, y = (w - thick) / 2, (d - thick) / 2
    return [box(i * x, j * y, 0, thick, thick, h, tone) for i in (-1, 1) for j in (-1, 1)]


def _table(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [box(0, 0, h - 0.04, w, d, 0.04), *_legs(w * 0.94, d * 0.92, h - 0.04, 0.06)]


def _desk(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    side = int(rng.integers(2)) * 2 - 1
    return [
        box(0, 0, h - 0.035, w, d, 0.035),
        box(-side * (w / 2 - 0.02), 0, 0, 0.03, d * 0.95, h - 0.035, 0.85),
        box(side * (w / 2 - 0.2), 0, 0, 0.38, d * 0.9, h - 0.035, 0.9),
        box(0, d / 2 - 0.04, h * 0.45, w * 0.9, 0.02, h * 0.5, 0.8),
    ]


def _chair(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    seat = h * 0.52
    return [
        box(0, 0, seat - 0.04, w, d, 0.04),
        box(0, d / 2 - 0.02, seat, w, 0.035, h - seat),
        *_legs(w, d, seat - 0.04, 0.04),
    ]


def _office_chair(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    seat = h * 0.5
    arms = [box(i * w * 0.52, 0, seat + 0.16, 0.04, d * 0.6, 0.03, 0.6) for i in (-1, 1)]
    posts = [box(i * w * 0.52, 0, seat, 0.03, 0.05, 0.17, 0.6) for i in (-1, 1)]
    return [
        box(0, 0, seat - 0.09, w, d, 0.09),
        box(0, d / 2 - 0.04, seat + 0.06, w * 0.92, 0.07, h - seat - 0.06),
        disc(0, 0, 0.08, 0.035, seat - 0.17, 0.5),
        disc(0, 0, 0.02, w * 0.5, 0.06, 0.5),
        *arms,
        *posts,
    ]


def _couch(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    arm, seat = 0.16, h * 0.52
    places = 3 if w > 1.7 else 2 if w > 1.2 else 1
    width = (w - 2 * arm) / places
    cushions = [
        box(-w / 2 + arm + width * (k + 0.5), -0.06, seat - 0.14, width - 0.02, d - 0.3, 0.15, 1.08)
        for k in range(places)
    ]
    return [
        box(0, 0, 0.06, w, d, seat - 0.2, 0.9),
        box(0, d / 2 - 0.11, 0.06, w, 0.22, h - 0.06),
        box(-w / 2 + arm / 2, 0, 0.06, arm, d, h * 0.68),
        box(w / 2 - arm / 2, 0, 0.06, arm, d, h * 0.68),
        *cushions,
    ]


def _bed(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    top = h * 0.55
    return [
        box(0, 0, 0, w, d, top * 0.5, 0.6),
        box(0, -0.02, top * 0.5, w * 0.97, d * 0.96, top * 0.5, 1.1),
        box(0, d / 2 - 0.03, 0, w, 0.06, h, 0.6),
    ]


def _cabinet(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    doors = [box(i * w / 4, -d / 2 - 0.01, 0.06, w / 2 - 0.02, 0.02, h - 0.1, 1.1) for i in (-1, 1)]
    knobs = [box(i * 0.04, -d / 2 - 0.035, h * 0.5, 0.02, 0.03, 0.12, 0.4) for i in (-1, 1)]
    return [box(0, 0, 0, w, d, h), *doors, *knobs]


def _bookshelf(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    levels = shelf_levels(h)
    return [
        box(0, d / 2 - 0.01, 0, w, 0.02, h, 0.8),
        *[box(i * (w / 2 - 0.015), 0, 0, 0.03, d, h) for i in (-1, 1)],
        *[box(0, 0, z, w - 0.06, d, 0.025) for z in (*levels, h - 0.025)],
    ]


def shelf_levels(height: float) -> list[float]:
    """Bottoms of a bookshelf's boards but the top one."""
    count = max(round(height / 0.36), 2)
    return [0.06 + k * (height - 0.06) / count for k in range(count)]


def _shelf(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    count = max(round(h / 0.45), 2)
    boards = [box(0, 0, 0.1 + k * (h - 0.13) / (count - 1), w, d, 0.03) for k in range(count)]
    return [*boards, *_legs(w, d, h, 0.035, 0.6)]


def _books(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    parts, x = [], -w / 2
    while x < w / 2 - 0.02:
        thick = float(rng.uniform(0.025, 0.06))
        height = h * float(rng.uniform(0.75, 1.0))
        parts.append(
            box(x + thick / 2, 0, 0, thick * 0.94, d, height, float(rng.uniform(0.6, 1.3)))
        )
        x += thick
    return parts


def _monitor(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [
        box(0, 0, h * 0.25, w, 0.045, h * 0.75),
        box(0, -0.025, h * 0.28, w * 0.94, 0.006, h * 0.68, 2.2),
        box(0, 0.03, 0.01, 0.07, 0.04, h * 0.4),
        box(0, 0, 0, w * 0.45, d, 0.02),
    ]


def _keyboard(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [box(0, 0, 0, w, d, h), box(0, 0, h, w * 0.94, d * 0.8, 0.006, 1.6)]


def _lamp(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    shade = min(0.3, h * 0.3)
    return [
        disc(0, 0, 0, w * 0.4, 0.03, 0.5),
        disc(0, 0, 0.03, 0.015, h - shade - 0.03, 0.5),
        disc(0, 0, h - shade, w / 2, shade, 1.3),
    ]


def _trash_can(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [disc(0, 0, 0, w / 2, h), disc(0, 0, h, w / 2 + 0.015, 0.025, 1.3)]


def _bin(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [box(0, 0, 0, w, d, h), box(0, 0, h, w + 0.03, d + 0.03, 0.03, 1.25)]


def _box(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [box(0, 0, 0, w, d, h), box(0, 0, h, w * 0.12, d, 0.004, 1.35)]


def _pillow(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [ball(0, 0, h / 2, w, d, h)]


def _ball(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [ball(0, 0, w / 2, w, w, w)]


def _poster(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [box(0, 0, 0, w, d, h), box(0, -d / 2 - 0.002, h * 0.1, w * 0.6, 0.004, h * 0.4, 0.6)]


def _toilet(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [
        disc(0, -d * 0.15, 0, w * 0.32, h * 0.45),
        disc(0, -d * 0.15, h * 0.45, w * 0.5, 0.07),
        box(0, d * 0.36, h * 0.42, w * 1.05, d * 0.26, h * 0.55),
        box(0, d * 0.36, h * 0.97, w * 1.1, d * 0.3, 0.03, 0.9),
    ]


def _sink(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [
        disc(0, d * 0.1, 0, 0.09, h - 0.16),
        box(0, 0, h - 0.16, w, d, 0.16),
        ball(0, -0.02, h, w * 0.7, d * 0.6, 0.05, 0.7),
        box(0, d / 2 - 0.06, h, 0.04, 0.04, 0.16, 0.5),
    ]


def _nightstand(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    drawers = [
        box(0, -d / 2 - 0.01, 0.08 + k * h * 0.43, w * 0.9, 0.02, h * 0.38, 1.15) for k in range(2)
    ]
    knobs = [box(0, -d / 2 - 0.03, 0.25 * h + k * h * 0.43, 0.1, 0.03, 0.02, 0.4) for k in range(2)]
    return [box(0, 0, 0.05, w, d, h - 0.05), *drawers, *knobs]


def _plant(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    pot = h * 0.3
    leaves = []
    for _ in range(5):
        x, y = rng.uniform(-0.22, 0.22, 2) * w
        z, size = pot + rng.uniform(0.3, 0.75) * (h - pot), rng.uniform(0.4, 0.6)
        tone = float(rng.uniform(0.7, 1.2))
        leaves.append(
            ball(float(x), float(y), float(z), size * w, size * w, size * (h - pot), tone)
        )
    return [
        disc(0, 0, 0, w * 0.28, pot, 0.45),
        disc(0, 0, pot, 0.02, (h - pot) * 0.5, 0.6),
        *leaves,
    ]


def _bottle(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [disc(0, 0, 0, w / 2, h * 0.65), disc(0, 0, h * 0.65, w * 0.2, h * 0.35, 1.3)]


def _stool(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [disc(0, 0, h - 0.05, w / 2, 0.05), *_legs(w * 0.66, w * 0.66, h - 0.05, 0.035)]


def _refrigerator(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    split = h * 0.34
    return [
        box(0, 0.02, 0, w, d - 0.04, h, 0.85),
        box(0, -d / 2 + 0.01, 0.04, w * 0.98, 0.05, split - 0.05),
        box(0, -d / 2 + 0.01, split, w * 0.98, 0.05, h - split - 0.02),
        box(-w * 0.4, -d / 2 - 0.03, split + 0.1, 0.03, 0.04, 0.5, 0.5),
    ]


def _framed(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    """A frame around a pane: pictures, whiteboards, windows."""
    edge = 0.05
    return [
        box(0, 0, edge, w - 2 * edge, d * 0.5, h - 2 * edge, 1.25),
        *[box(i * (w - edge) / 2, 0, 0, edge, d, h, 0.6) for i in (-1, 1)],
        *[box(0, 0, z, w, d, edge, 0.6) for z in (0.0, h - edge)],
    ]


def _window(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [*_framed(w, d, h, rng), box(0, 0, 0.05, 0.05, d, h - 0.1, 0.6)]


def _door(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    return [
        box(0, 0, 0, w, d, h),
        box(w * 0.38, -d / 2 - 0.03, h * 0.48, 0.12, 0.05, 0.03, 0.4),
        *[box(0, -d / 2 - 0.004, h * z, w * 0.6, 0.008, h * 0.36, 0.88) for z in (0.08, 0.54)],
    ]


def _curtain(w: float, d: float, h: float, rng: np.random.Generator) -> list[Part]:
    folds = max(round(w / 0.12), 3)
    width = w / folds
    return [
        box(
            (k + 0.5) * width - w / 2,
            (k % 2 - 0.5) * d * 0.5,
            0,
            width,
            d * 0.5,
            h,
            0.85 + k % 2 * 0.25,
        )
        for k in range(folds)
    ]


@dataclass(frozen=True)
class Kind:
    """How the furniture of one class is made.

    Args:
        make: From width, depth and height to its parts.
        size: Usual width, depth and height; each piece differs by up to a quarter.
        colors: Palette, 0 to 1; a room takes one of them for all its pieces of the class.
        texture: Pattern on its surfaces.
    """

    make: Maker
    size: Triple
    colors: tuple[Triple, ...]
    texture: Literal["plain", "stripes", "checker", "noise", "wood"] = "plain"


_OAK, _WALNUT, _PINE = (0.72, 0.52, 0.33), (0.42, 0.27, 0.17), (0.85, 0.70, 0.48)
_WHITE, _BLACK, _STEEL = (0.90, 0.90, 0.88), (0.13, 0.13, 0.15), (0.62, 0.65, 0.68)

# By id in ScanNet's label table.
KINDS: dict[int, Kind] = {
    2: Kind(_chair, (0.45, 0.45, 0.9), ((0.78, 0.36, 0.18), (0.70, 0.20, 0.16)), "wood"),
    4: Kind(_table, (1.3, 0.8, 0.74), (_OAK, _PINE), "wood"),
    5: Kind(_door, (0.9, 0.06, 2.05), ((0.60, 0.44, 0.28), (0.80, 0.77, 0.70)), "wood"),
    6: Kind(_couch, (1.9, 0.9, 0.82), ((0.25, 0.33, 0.50), (0.48, 0.40, 0.34)), "noise"),
    7: Kind(_cabinet, (0.9, 0.45, 1.0), ((0.66, 0.62, 0.54), (0.50, 0.55, 0.50)), "plain"),
    8: Kind(_shelf, (0.9, 0.35, 1.4), ((0.50, 0.50, 0.54), (0.58, 0.46, 0.30)), "plain"),
    9: Kind(_desk, (1.4, 0.7, 0.74), (_PINE, (0.78, 0.76, 0.72)), "wood"),
    10: Kind(_office_chair, (0.5, 0.5, 1.0), ((0.16, 0.20, 0.34), (0.20, 0.20, 0.22)), "noise"),
    11: Kind(_bed, (1.5, 2.0, 0.95), ((0.60, 0.70, 0.82), (0.78, 0.70, 0.62)), "checker"),
    13: Kind(_pillow, (0.5, 0.35, 0.17), ((0.94, 0.84, 0.40), (0.86, 0.60, 0.62)), "stripes"),
    14: Kind(_sink, (0.55, 0.45, 0.85), ((0.84, 0.90, 0.92),), "plain"),
    15: Kind(_framed, (0.7, 0.04, 0.55), ((0.44, 0.52, 0.30), (0.56, 0.34, 0.44)), "noise"),
    16: Kind(_window, (1.3, 0.06, 1.1), ((0.60, 0.80, 0.94),), "plain"),
    17: Kind(_toilet, (0.4, 0.65, 0.8), ((0.95, 0.93, 0.86),), "plain"),
    18: Kind(_bookshelf, (0.85, 0.32, 1.8), (_WALNUT, _OAK), "wood"),
    19: Kind(_monitor, (0.55, 0.2, 0.46), (_BLACK,), "plain"),
    21: Kind(_curtain, (0.8, 0.12, 2.1), ((0.62, 0.24, 0.30), (0.40, 0.52, 0.46)), "stripes"),
    22: Kind(_books, (0.4, 0.2, 0.25), ((0.55, 0.30, 0.22), (0.30, 0.42, 0.40)), "plain"),
    23: Kind(_couch, (0.9, 0.85, 0.85), ((0.48, 0.20, 0.18), (0.30, 0.42, 0.28)), "noise"),
    24: Kind(_table, (1.0, 0.6, 0.42), (_WALNUT, (0.34, 0.22, 0.18)), "wood"),
    26: Kind(_box, (0.42, 0.36, 0.32), ((0.76, 0.60, 0.40),), "noise"),
    27: Kind(_refrigerator, (0.7, 0.68, 1.75), (_STEEL, _WHITE), "plain"),
    28: Kind(_lamp, (0.4, 0.4, 1.5), ((0.92, 0.84, 0.62),), "plain"),
    34: Kind(_nightstand, (0.48, 0.42, 0.55), (_OAK, _WHITE), "wood"),
    38: Kind(_stool, (0.36, 0.36, 0.5), ((0.80, 0.62, 0.22), (0.30, 0.56, 0.60)), "wood"),
    39: Kind(_pillow, (0.45, 0.45, 0.2), ((0.90, 0.50, 0.20), (0.30, 0.60, 0.60)), "checker"),
    40: Kind(_plant, (0.6, 0.6, 1.0), ((0.26, 0.50, 0.22),), "noise"),
    44: Kind(_stool, (0.5, 0.5, 0.52), ((0.52, 0.36, 0.24), (0.86, 0.84, 0.80)), "wood"),
    45: Kind(_table, (1.6, 0.95, 0.76), ((0.58, 0.36, 0.20), (0.80, 0.66, 0.46)), "wood"),
    46: Kind(_keyboard, (0.44, 0.15, 0.02), (_BLACK, (0.80, 0.80, 0.80)), "plain"),
    52: Kind(_framed, (1.6, 0.04, 1.0), ((0.78, 0.80, 0.82),), "plain"),
    56: Kind(_trash_can, (0.3, 0.3, 0.42), ((0.22, 0.24, 0.26), (0.48, 0.50, 0.52)), "stripes"),
    65: Kind(_bottle, (0.09, 0.09, 0.28), ((0.20, 0.48, 0.34), (0.26, 0.40, 0.66)), "plain"),
    66: Kind(_bin, (0.36, 0.28, 0.5), ((0.20, 0.42, 0.66), (0.22, 0.50, 0.34)), "plain"),
    168: Kind(_ball, (0.4, 0.4, 0.4), ((0.85, 0.30, 0.55), (0.30, 0.55, 0.85)), "stripes"),
    1188: Kind(_poster, (0.7, 0.012, 1.0), ((0.76, 0.44, 0.28), (0.34, 0.46, 0.62)), "checker"),
}
