"""Images with identity, camera and view, and what a data set of such images holds.

A reader of an on-disk layout gives a `Listing`; nothing downstream knows the layout.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from blocks.errors import SuiteError
from datamodules.inspection import Remark
from datamodules.vision.image_reader import FileSource, Item, read_rgb

Split = Literal["train", "query", "gallery"]
Protocol = Literal["cmc_camera", "trapezoid"]
SPLITS: tuple[Split, ...] = ("train", "query", "gallery")

View = Literal["satellite", "drone", "street", "google"]
Direction = Literal[
    "drone_to_satellite",
    "satellite_to_drone",
    "street_to_satellite",
    "satellite_to_street",
    "street_to_drone",
    "drone_to_street",
]

JUNK = -1
"""Identity of images that every protocol leaves out, as below it: badly cropped, of unknown."""

QUERY, GALLERY = 0, 1
"""Roles of an image in evaluation."""

# Longer ones do not fit int64: they are names.
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


class Record(NamedTuple):
    """An image file; `identity` as on disk, `camera` and `view` counted from 0."""

    path: str
    identity: int
    camera: int
    view: int
    split: Split


@dataclass(frozen=True)
class Listing:
    """The images of a data set, junk left out.

    Args:
        layout: Name of the layout that was read.
        home: Folder that holds it; `root` or one in it.
        records: The images, each split sorted by path.
        protocol: How it is evaluated: `cmc_camera` removes gallery images of the query's identity
            and camera, `trapezoid` removes nothing (University-1652).
        views: Names of view 0, 1, ...
        direction: From which view to which, in a cross-view set.
        distractor: Identity in the gallery that is nobody's.
        shared_identities: Whether a number means the same identity in training and in evaluation.
        remarks: What the reader noticed and left out.
    """

    layout: str
    home: Path
    records: tuple[Record, ...]
    protocol: Protocol = "cmc_camera"
    views: tuple[str, ...] = ("image",)
    direction: Direction | None = None
    distractor: int | None = None
    shared_identities: bool = True
    remarks: tuple[Remark, ...] = ()

    def of(self, split: Split) -> list[Record]:
        """The images of one split."""
        return [record for record in self.records if record.split == split]


def raise_it(error: SuiteError) -> None:
    """Raises what it hears of."""
    raise error


@dataclass(frozen=True)
class Wanted:
    """Which data set to list, and how.

    Args:
        root: Its folder, or the file of a table.
        direction: Views of queries and gallery, in a cross-view set.
        train_views: Views to train on, in a cross-view set.
        camera_pattern: Regular expression whose first group is the camera in a file's name, in
            plain folders.
        join_val: Whether MSMT17's validation images are trained on too.
        complain: Hears what is wrong. It may raise, or go on listening; then the rest is listed.
    """

    root: Path
    direction: Direction = "drone_to_satellite"
    train_views: tuple[View, ...] = ("satellite", "drone")
    camera_pattern: str | None = None
    join_val: bool = False
    complain: Callable[[SuiteError], None] = raise_it


class RecordReader:
    """Gives `dict(image=PIL RGB image, identity, camera, view, index, path)` by index.

    Args:
        records: The images, in the order of their indices.
        identities: Identity to give for each image.
        roles: Role to give for each image, as the entry `role`; none in training.
    """

    def __init__(
        self,
        records: Sequence[Record],
        identities: Sequence[int],
        roles: Sequence[int] | None = None,
    ) -> None:
        items = [Item(r.path, identity) for r, identity in zip(records, identities, strict=True)]
        self.source = FileSource(items)
        columns = {
            "camera": [record.camera for record in records],
            "view": [record.view for record in records],
            **({} if roles is None else {"role": list(roles)}),
        }
        self.columns = {name: np.array(column, np.int64) for name, column in columns.items()}

    @property
    def identities(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Identity of each image."""
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": read_rgb(self.source, index),
            "identity": int(self.source.labels[index]),
            **{name: int(column[index]) for name, column in self.columns.items()},
            "index": index,
            "path": self.source.name(index),
        }


def relabel(identities: Iterable[int]) -> dict[int, int]:
    """Labels 0..P-1 of the sorted identities: the same on every machine."""
    return {identity: label for label, identity in enumerate(sorted(set(identities)))}


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Number of each name: itself where all are whole numbers, else its place among the sorted.

    The name "-1" is junk in either case.
    """
    distinct = sorted(set(names) - {str(JUNK)})
    if all(_WHOLE_NUMBER.fullmatch(name) for name in distinct):
        number = {name: int(name) for name in distinct}
    else:
        number = {name: place for place, name in enumerate(distinct)}
    return {**number, str(JUNK): JUNK}


def places(values: Iterable[str]) -> dict[str, int]:
    """Place of each value, from 0, among the sorted ones; 10 comes after 9."""
    distinct = set(values)
    number = numbered(distinct)
    order = sorted({number[value] for value in distinct})
    return {v: order.index(number[v]) for v in sorted(distinct, key=lambda v: (number[v], v))}


def in_order(records: Iterable[Record]) -> tuple[Record, ...]:
    """Records without junk: training, queries, gallery, each sorted by view and path."""
    kept = (record for record in records if record.identity > JUNK)
    return tuple(sorted(kept, key=lambda r: (SPLITS.index(r.split), r.view, r.path)))
