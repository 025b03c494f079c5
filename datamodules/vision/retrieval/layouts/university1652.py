"""`university1652`: buildings seen from satellites, drones and streets.

`train/<view>/<building>/*` and `test/{query,gallery}_<view>/<building>/*`. A folder's name is the
building's number. Cameras are the views: the protocol removes nothing for their sake.
"""

from pathlib import Path

from datamodules.inspection import Remark
from datamodules.vision.image_reader import find_images
from datamodules.vision.layouts.request import listing, subfolders, wrong
from datamodules.vision.retrieval.layouts.homes import homes, noticed, the_home
from datamodules.vision.retrieval.records import (
    Listing,
    Record,
    Split,
    Wanted,
    in_order,
    numbered,
)

UNIVERSITY_TREE = """
  root/train/{satellite,drone,street,google}/<building>/*
  root/test/query_{drone,satellite,street}/<building>/*
  root/test/gallery_{drone,satellite,street}/<building>/*
  (also in root/University-1652/, root/University-Release/)"""

_NAMES = ("University-1652", "University-Release", "university1652")


def is_university(root: Path) -> bool:
    """Whether there is a gallery of views."""
    return bool(homes(root, _NAMES, _has_views))


def read_university(wanted: Wanted) -> Listing:
    """Lists the layout `university1652`, its training views and one direction of its test."""
    home = the_home(homes(wanted.root, _NAMES, _has_views), wanted.root, wanted.complain)
    if home is None:
        found = listing(wanted.root)
        wanted.complain(wrong("university1652", UNIVERSITY_TREE, found, wanted.root))
        return Listing("university1652", wanted.root, ())
    asked, sought = wanted.direction.split("_to_")
    # Training views first and in their order, for they are the parts of a batch.
    views = tuple(dict.fromkeys((*wanted.train_views, asked, sought)))
    folders: list[tuple[Split, str, Path]] = [
        *(("train", view, home / "train" / view) for view in wanted.train_views),
        ("query", asked, home / "test" / f"query_{asked}"),
        ("gallery", sought, home / "test" / f"gallery_{sought}"),
    ]
    names = {path: subfolders(path) for _, _, path in folders if path.is_dir()}
    number = numbered(name for group in names.values() for name in group)
    records: list[Record] = []
    remarks: list[Remark] = []
    for split, view, folder in folders:
        if folder not in names:
            # A copy for evaluation alone is fine.
            if split != "train" or (home / "train").is_dir():
                wanted.complain(wrong("university1652", UNIVERSITY_TREE, "no such folder", folder))
            continue
        empty = []
        for name in names[folder]:
            place = views.index(view)
            found_here = find_images(folder / name)
            records += [Record(path, number[name], place, place, split) for path in found_here]
            empty += [] if found_here else [str(folder / name)]
        remarks += noticed(
            "building folders without an image",
            empty,
            f"images of every building in {folder.relative_to(home)}",
            "nothing to do for google, where some are empty; else complete the download",
            "note" if view == "google" else "warning",
        )
    return Listing(
        layout="university1652",
        home=home,
        records=in_order(records),
        protocol="trapezoid",
        views=views,
        direction=wanted.direction,
        remarks=tuple(remarks),
    )


def _has_views(folder: Path) -> bool:
    test = folder / "test"
    return any((test / f"gallery_{v}").is_dir() for v in ("satellite", "drone", "street"))
