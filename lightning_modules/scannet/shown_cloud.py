"""A point cloud with its instances as people look at it: colours that mean the same everywhere."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Points of no instance.
_GREY = (128, 128, 128)
# A prediction takes the colour of the truth it overlaps this much; of intersection over union.
_SAME = 0.25
# Numbers of the colours of predictions that found nothing, far from those of true instances.
_WRONG = 10_000


@dataclass(frozen=True)
class Labelling:
    """Instances of a cloud, each point in one of them at most.

    Args:
        number: Of each point, (P,) int64, a place in `names`; -1 for none.
        names: What each instance is called.
        colours: Number of the colour of each.
    """

    number: Array
    names: list[str]
    colours: list[int]

    @property
    def rgb(self) -> Array:
        """Colours of the points, (P, 3) uint8."""
        palette = np.array([*(colour_of(c) for c in self.colours), _GREY], np.uint8)
        out: Array = palette[self.number]
        return out


@dataclass(frozen=True)
class ShownCloud:
    """A frame or scene with what is known and what was found.

    Args:
        name: Such as scene0000_00/200.
        xyz: Metres, z up, (P, 3) float32.
        rgb: (P, 3) uint8.
        prediction: Found instances.
        truth: True instances, or None.
        share: Of the image in each point's feature, (P,) in 0..1, or None without fusion.
        uv: Pixels of the points, (P, 2), or None.
        image: The frame, (H, W, 3) uint8, or None.
        image_size: Width and height that `uv` refers to.
        heading: Where the camera looks, as an angle from y towards x, or None for scenes.
    """

    name: str
    xyz: Array
    rgb: Array
    prediction: Labelling
    truth: Labelling | None = None
    share: Array | None = None
    uv: Array | None = None
    image: Array | None = None
    image_size: tuple[int, int] | None = None
    heading: float | None = None

    def modes(self) -> dict[str, Array]:
        """Colours (P, 3) uint8 of every way to look at it."""
        modes = {"input": self.rgb, "prediction": self.prediction.rgb}
        if self.truth is not None:
            modes["truth"] = self.truth.rgb
        if self.share is not None:
            modes["gate"] = heat(self.share)
        return modes


def true_labelling(instance: Array, semantic: Array, class_names: list[str]) -> Labelling:
    """The true instances.

    Args:
        instance: (P,), -1 for none and on stuff.
        semantic: (P,).
        class_names: Of all classes, in official order.
    """
    ids, first, number = np.unique(instance, return_index=True, return_inverse=True)
    names = [class_names[semantic[i]] if semantic[i] < len(class_names) else "?" for i in first]
    if ids[:1] == -1:
        return Labelling(number - 1, names[1:], ids[1:].tolist())
    return Labelling(number, names, ids.tolist())


def found_labelling(masks: Array, names: list[str], truth: Labelling | None = None) -> Labelling:
    """The found instances, better ones on top; each has the colour of the truth it found.

    Args:
        masks: Best first, (M, P) bool.
        names: Of the instances, M of them.
        truth: Lends its colours.
    """
    number = np.full(masks.shape[1], -1)
    for i in range(len(masks) - 1, -1, -1):
        number[masks[i]] = i
    colours = [_WRONG + i for i in range(len(masks))]
    if truth is not None and len(masks) and truth.names:
        true = truth.number == np.arange(len(truth.names))[:, None]
        overlap = masks.astype(np.float32) @ true.T.astype(np.float32)
        union = masks.sum(1)[:, None] + true.sum(1) - overlap
        iou = overlap / np.maximum(union, 1)
        for j in range(len(truth.names)):
            best = int(iou[:, j].argmax())
            if iou[best, j] > _SAME and iou[best, j] == iou[best].max():
                colours[best] = truth.colours[j]
    return Labelling(number, names, colours)


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour that a number keeps for ever; neighbours in number are far apart in hue."""
    import colorsys

    hue = (number * 0.618034 + 0.1) % 1
    saturation, value = (0.55, 0.75, 0.95)[number % 3], (0.95, 0.75)[number // 3 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def heat(values: Array) -> Array:
    """0..1 as colours from blue over grey to red, (P, 3) uint8."""
    x = np.clip(values.astype(np.float32), 0, 1)[:, None]
    low, middle, high = (
        np.array(c, np.float32) for c in ((33, 102, 172), (170, 170, 170), (178, 24, 43))
    )
    below, above = np.clip(2 * x, 0, 1), np.clip(2 * x - 1, 0, 1)
    colour = low + (middle - low) * below + (high - middle) * above
    out: Array = np.rint(colour).astype(np.uint8)
    return out
