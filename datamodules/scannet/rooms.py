"""Rooms of the embedded data: a shell, furniture against its walls and on its floor, things on top.

Room axes: x and y along the walls from one corner, z up, metres. All randomness comes from the
generator that is passed in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from datamodules.scannet.furniture import KINDS, Part, shelf_levels
from datamodules.scannet.furniture import box as slab

# Ids of the label table.
WALL, FLOOR, CEILING = 1, 3, 41
DESK, CABINET, BOOKSHELF, NIGHTSTAND, BED, COUCH = 9, 7, 18, 34, 11, 6
TABLE, DINING_TABLE, COFFEE_TABLE, SHELF = 4, 45, 24, 8
_GAP = 0.04

# What stands along the walls, what stands in the room, and what hangs.
_STYLES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "office": ((9, 9, 18, 7, 8, 56, 66, 40), (4, 2, 2, 10, 26, 56), (52, 15, 16, 5)),
    "living": ((6, 18, 7, 23, 28, 40, 44), (24, 23, 38, 6, 40, 168), (15, 1188, 16, 21, 5)),
    "bedroom": ((11, 34, 34, 7, 18, 9, 28), (38, 26, 23, 56, 168), (1188, 16, 21, 5)),
    "kitchen": ((27, 7, 7, 14, 8, 66, 56), (45, 2, 38, 26), (16, 15, 5)),
    "bathroom": ((17, 14, 7, 66, 8), (38, 26, 56), (16, 15, 5)),
}


@dataclass(frozen=True)
class Thing:
    """One instance.

    Args:
        label: Id of its class in the label table; 0 for something nobody labelled.
        parts: Solids in its own axes.
        position: Of its origin in the room.
        yaw: Its rotation about z, radians.
        color: 0 to 1.
        texture: Pattern, a name of `datamodules.scannet.furniture.Kind`.
    """

    label: int
    parts: tuple[Part, ...]
    position: tuple[float, float, float]
    yaw: float
    color: tuple[float, float, float]
    texture: str


@dataclass
class Room:
    """A furnished room.

    Args:
        size: Width, depth and height.
        things: All that is in it; the first six are the shell: walls at x = 0, x = width, y = 0,
            y = depth, the floor and the ceiling.
        footprints: Rectangles (x0, y0, x1, y1) that furniture covers.
    """

    size: tuple[float, float, float]
    things: list[Thing] = field(default_factory=list)
    footprints: list[tuple[float, float, float, float]] = field(default_factory=list)

    def free(self, x: float, y: float, margin: float) -> bool:
        """Whether a circle of radius `margin` on the floor touches neither furniture nor walls."""
        width, depth, _ = self.size
        inside = margin < x < width - margin and margin < y < depth - margin
        return inside and not any(
            x0 - margin < x < x1 + margin and y0 - margin < y < y1 + margin
            for x0, y0, x1, y1 in self.footprints
        )


def furnished_room(rng: np.random.Generator) -> Room:
    """A room with about 10 to 25 pieces of furniture and things on them.

    Args:
        rng: Decides everything.
    """
    size = (*map(float, rng.uniform(4, 6, 2)), float(rng.uniform(2.4, 3.0)))
    room = Room((size[0], size[1], size[2]))
    room.things += _shell(rng)
    palette = {label: int(rng.integers(len(kind.colors))) for label, kind in KINDS.items()}
    along, inside, hung = _STYLES[str(rng.choice(list(_STYLES)))]
    builder = _Builder(room, rng, palette)
    for label in along:
        if rng.random() < 0.9:
            builder.against_wall(label)
    for label in inside:
        if rng.random() < 0.85:
            builder.in_the_room(label)
    for label in hung:
        if rng.random() < 0.8:
            builder.on_wall(label)
    for _ in range(int(rng.integers(0, 3))):
        builder.clutter()
    return room


class _Builder:
    """Puts things where they fit."""

    def __init__(self, room: Room, rng: np.random.Generator, palette: dict[int, int]) -> None:
        self.room, self.rng, self.palette = room, rng, palette
        self.hung: list[tuple[int, float, float]] = []

    def against_wall(self, label: int) -> None:
        """Furniture with its back to a wall, and what belongs on it."""
        w, d, h = self._size(label)
        for _ in range(20):
            side = int(self.rng.integers(4))
            yaw = _facing_in(side) + float(self.rng.normal(0, 0.02))
            length = self.room.size[0] if side < 2 else self.room.size[1]
            if length < w + 0.3:
                continue
            along = float(self.rng.uniform(w / 2 + 0.1, length - w / 2 - 0.1))
            x, y = self._at_wall(side, along, d / 2 + _GAP)
            if self._fits(x, y, w, d, yaw, 0.05):
                self._place(label, w, d, h, (x, y, 0.0), yaw)
                self._dress(label, w, d, h, x, y, yaw)
                return

    def in_the_room(self, label: int) -> None:
        """Furniture anywhere on the floor."""
        w, d, h = self._size(label)
        width, depth, _ = self.room.size
        for _ in range(20):
            x, y = self.rng.uniform((0.6, 0.6), (width - 0.6, depth - 0.6)).tolist()
            yaw = float(self.rng.integers(4)) * np.pi / 2 + float(self.rng.normal(0, 0.15))
            if self._fits(x, y, w, d, yaw, 0.12):
                self._place(label, w, d, h, (x, y, 0.0), yaw)
                self._dress(label, w, d, h, x, y, yaw)
                return

    def on_wall(self, label: int) -> None:
        """Something flat on a wall, where nothing hangs yet; doors and curtains reach the floor."""
        w, d, h = self._size(label)
        height = self.room.size[2]
        h = min(h, height - 0.25)
        for _ in range(20):
            side = int(self.rng.integers(4))
            length = self.room.size[0] if side < 2 else self.room.size[1]
            along = float(self.rng.uniform(w / 2 + 0.1, length - w / 2 - 0.1))
            if any(s == side and abs(along - a) < (w + v) / 2 + 0.1 for s, a, v in self.hung):
                continue
            bottom = 0.0 if label in {5, 21} else float(self.rng.uniform(0.95, 1.25))
            bottom = min(bottom, height - h - 0.1)
            x, y = self._at_wall(side, along, d / 2 + 0.002)
            yaw = _facing_in(side)
            # What reaches the floor needs it, and some room before it.
            before = self._at_wall(side, along, 0.17)
            if bottom == 0 and not self._fits(*before, w, 0.336, yaw, 0.0):
                continue
            self.hung.append((side, along, w))
            self._place(label, w, d, h, (x, y, bottom), yaw, footprint=bottom == 0)
            return

    def clutter(self) -> None:
        """A small heap on the floor that nobody labelled."""
        size = float(self.rng.uniform(0.15, 0.35))
        width, depth, _ = self.room.size
        for _ in range(10):
            x, y = self.rng.uniform((0.4, 0.4), (width - 0.4, depth - 0.4)).tolist()
            yaw = float(self.rng.uniform(0, np.pi))
            if self._fits(x, y, size, size, yaw, 0.05):
                part = slab(0, 0, 0, size, size * 0.8, size * 0.6)
                color = tuple(self.rng.uniform(0.2, 0.8, 3).tolist())
                self.room.things.append(Thing(0, (part,), (x, y, 0.0), yaw, color, "noise"))
                self._cover(x, y, size, size, yaw)
                return

    def _dress(
        self, label: int, w: float, d: float, h: float, x: float, y: float, yaw: float
    ) -> None:
        """What belongs on a piece of furniture, in the piece's own axes."""
        for other, dx, dy, z, turn in _belongings(label, w, d, h, self.rng):
            ow, od, oh = self._size(other)
            if other == 22:
                ow = min(ow, w * 0.45)
            if other == 28 and z > 0:
                ow, od, oh = ow * 0.6, od * 0.6, oh * 0.3
            if other == 40 and z > 0:
                ow, od, oh = ow * 0.45, od * 0.45, oh * 0.4
            cos, sin = np.cos(yaw), np.sin(yaw)
            px, py = float(x + cos * dx - sin * dy), float(y + sin * dx + cos * dy)
            if z == 0 and not self._fits(px, py, ow, od, yaw + turn, 0.0):
                continue
            self._place(other, ow, od, oh, (px, py, z), yaw + turn, footprint=z == 0)

    def _place(
        self,
        label: int,
        w: float,
        d: float,
        h: float,
        position: tuple[float, float, float],
        yaw: float,
        footprint: bool = True,
    ) -> None:
        kind = KINDS[label]
        parts = tuple(kind.make(w, d, h, self.rng))
        color = kind.colors[self.palette[label]]
        self.room.things.append(Thing(label, parts, position, yaw, color, kind.texture))
        if footprint:
            self._cover(position[0], position[1], w, d, yaw)

    def _size(self, label: int) -> tuple[float, float, float]:
        w, d, h = (float(s) for s in np.array(KINDS[label].size) * self.rng.uniform(0.75, 1.25, 3))
        if h > 0.8:
            h = min(h, self.room.size[2] - 0.2)
        return w, d, h

    def _at_wall(self, side: int, along: float, away: float) -> tuple[float, float]:
        width, depth, _ = self.room.size
        return ((along, away), (along, depth - away), (away, along), (width - away, along))[side]

    def _fits(self, x: float, y: float, w: float, d: float, yaw: float, margin: float) -> bool:
        x0, y0, x1, y1 = _rectangle(x, y, w, d, yaw)
        width, depth, _ = self.room.size
        inside = x0 > 0 and y0 > 0 and x1 < width and y1 < depth
        return inside and not any(
            x0 < b[2] + margin and x1 > b[0] - margin and y0 < b[3] + margin and y1 > b[1] - margin
            for b in self.room.footprints
        )

    def _cover(self, x: float, y: float, w: float, d: float, yaw: float) -> None:
        self.room.footprints.append(_rectangle(x, y, w, d, yaw))


def _belongings(
    label: int, w: float, d: float, h: float, rng: np.random.Generator
) -> Iterator[tuple[int, float, float, float, float]]:
    """Things on or before a piece: class, x, y, z and turn in its axes."""
    if label == DESK:
        for k in range(2 if w > 1.5 else 1):
            x = (k - (w > 1.5) / 2) * 0.7
            yield 19, x, d * 0.2, h, float(rng.normal(0, 0.1))
        yield 46, 0.0, -d * 0.2, h, float(rng.normal(0, 0.1))
        if rng.random() < 0.6:
            yield 65, w * 0.4, -d * 0.1, h, 0.0
        yield 10, float(rng.normal(0, 0.1)), -d / 2 - 0.35, 0.0, np.pi + float(rng.normal(0, 0.4))
    elif label == BOOKSHELF:
        for z in shelf_levels(h):
            if rng.random() < 0.75:
                yield 22, float(rng.uniform(-0.2, 0.2)) * w, -0.02, z + 0.025, 0.0
    elif label == BED:
        for side in (-1, 1):
            yield 13, side * w * 0.24, d * 0.33, h * 0.55, float(rng.normal(0, 0.15))
    elif label == COUCH:
        side = int(rng.integers(2)) * 2 - 1
        yield 39, side * w * 0.28, d * 0.1, h * 0.54, float(rng.normal(0, 0.3))
    elif label in {NIGHTSTAND, CABINET} and rng.random() < 0.7:
        yield (28 if label == NIGHTSTAND else 40), 0.0, 0.0, h, 0.0
    elif label == SHELF:
        yield 26, 0.0, 0.0, h, 0.0
    elif label in {TABLE, DINING_TABLE}:
        for side in (-1, 1):
            if rng.random() < 0.8:
                turn = (0.0 if side > 0 else np.pi) + float(rng.normal(0, 0.2))
                yield 2, float(rng.normal(0, 0.15)), side * (d / 2 + 0.3), 0.0, turn
        yield 65, float(rng.uniform(-0.3, 0.3)) * w, 0.0, h, 0.0
    elif label == COFFEE_TABLE:
        yield 22, float(rng.uniform(-0.2, 0.2)) * w, 0.0, h, float(rng.normal(0, 0.5))


def _shell(rng: np.random.Generator) -> list[Thing]:
    """Walls, floor and ceiling; their surfaces are the room's box, so they have no parts."""
    light = float(rng.uniform(0.72, 0.9))
    tint = rng.uniform(-0.06, 0.06, 3)
    wall = tuple((light + tint).tolist())
    floor = ((0.56, 0.42, 0.28), (0.46, 0.45, 0.44), (0.60, 0.52, 0.42))[int(rng.integers(3))]
    texture = str(rng.choice(["wood", "checker", "noise"]))
    origin = (0.0, 0.0, 0.0)
    walls = [Thing(WALL, (), origin, 0.0, wall, "plain") for _ in range(4)]
    return [
        *walls,
        Thing(FLOOR, (), origin, 0.0, floor, texture),
        Thing(CEILING, (), origin, 0.0, (0.93, 0.93, 0.91), "plain"),
    ]


def _facing_in(side: int) -> float:
    """Yaw of a piece whose back is at a wall: y = 0, y = depth, x = 0, x = width."""
    return (np.pi, 0.0, np.pi / 2, -np.pi / 2)[side]


def _rectangle(
    x: float, y: float, w: float, d: float, yaw: float
) -> tuple[float, float, float, float]:
    """Bounding rectangle on the floor of a turned one."""
    cos, sin = abs(np.cos(yaw)), abs(np.sin(yaw))
    half_x, half_y = float(w * cos + d * sin) / 2, float(w * sin + d * cos) / 2
    return x - half_x, y - half_y, x + half_x, y + half_y
