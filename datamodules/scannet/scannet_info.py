"""What a segmentation module may know about its data."""

from dataclasses import dataclass
from typing import Literal

from datamodules.info import DataInfo
from datamodules.scannet.classes import CLASSES, THINGS

View = Literal["sv", "scene", "online"]

CLASS_NAMES = tuple(entry.name for entry in CLASSES)
GROUPS = tuple(entry.group for entry in CLASSES)


@dataclass(frozen=True)
class ScanNetInfo(DataInfo):
    """Facts about RGB-D frames or scenes with labelled points.

    Args:
        view: What one sample is: a single frame (sv), a whole scene, or a scene as it grows
            (online). Scores of different views cannot be compared.
        class_names: Of the 200 classes, in official order.
        class_ids: Their ids in the label table.
        class_groups: head, common or tail for each.
        things: Places of the classes that have instances.
        superpoints: Where they come from.
        image: Whether a batch has images, resized.
        image_size: Width and height of these; zeros without.
        color: Whether points have their colour.
        num_train: Samples read for training.
        num_eval: Samples to evaluate.
        left_out: Samples that the lists have and nobody can use, such as those without a pose.
    """

    view: View
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    class_groups: tuple[str, ...]
    things: tuple[int, ...]
    superpoints: str
    image: bool
    image_size: tuple[int, int]
    color: bool
    num_train: int
    num_eval: int
    left_out: int

    @property
    def head(self) -> tuple[int, ...]:
        """Places of the frequent classes with instances."""
        return places_in("head")

    @property
    def common(self) -> tuple[int, ...]:
        """Places of the less frequent classes with instances."""
        return places_in("common")

    @property
    def tail(self) -> tuple[int, ...]:
        """Places of the rare classes with instances."""
        return places_in("tail")


def places_in(group: str) -> tuple[int, ...]:
    """Places of the classes of a group that have instances."""
    return tuple(place for place in THINGS if CLASSES[place].group == group)
