"""`market1501` and `dukemtmc`: flat folders whose file names tell identity and camera.

`0002_c1s1_000451_03.jpg` is person 2 before camera 1. Identity -1 is junk and left out; identity 0
are detections of nobody, which only the gallery holds. Cameras count from 1 on disk, from 0 here.
"""

import re
from pathlib import Path

from datamodules.inspection import Remark
from datamodules.vision.image_reader import find_images
from datamodules.vision.layouts.request import listing, wrong
from datamodules.vision.retrieval.layouts.homes import homes, noticed, the_home
from datamodules.vision.retrieval.records import JUNK, Listing, Record, Split, Wanted, in_order

MARKET_TREE = """
  root/bounding_box_train/0002_c1s1_000451_03.jpg  (person, camera from 1; also in
  root/query/*.jpg                                  root/Market-1501-v15.09.15/)
  root/bounding_box_test/*.jpg  with -1 for junk and 0000 for detections of nobody"""
DUKE_TREE = """
  root/bounding_box_train/0001_c2_f0046182.jpg  (person, camera from 1; also in
  root/query/*.jpg                               root/DukeMTMC-reID/)
  root/bounding_box_test/*.jpg"""

FOLDERS: dict[Split, str] = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
}
NOBODY = 0

_MARKET_NAMES = ("Market-1501-v15.09.15", "market1501", "Market-1501")
_DUKE_NAMES = ("DukeMTMC-reID", "dukemtmc-reid", "dukemtmc-reid/DukeMTMC-reID")
_PERSON_CAMERA = re.compile(r"(-?\d+)_c(\d+)")
_DUKE_NAME = re.compile(r"-?\d+_c\d+_f\d+")


def is_market(root: Path) -> bool:
    """Whether there are Market-1501's folders, and names that are not DukeMTMC's."""
    return any(not _duke_names(home) for home in homes(root, _MARKET_NAMES, _has_folders))


def is_duke(root: Path) -> bool:
    """Whether there are the same folders with DukeMTMC's names, which tell the frame."""
    return any(_duke_names(home) for home in homes(root, _DUKE_NAMES, _has_folders))


def read_market(wanted: Wanted) -> Listing:
    """Lists the layout `market1501`."""
    return _read(wanted, "market1501", MARKET_TREE, _MARKET_NAMES)


def read_duke(wanted: Wanted) -> Listing:
    """Lists the layout `dukemtmc`."""
    return _read(wanted, "dukemtmc", DUKE_TREE, _DUKE_NAMES)


def _read(wanted: Wanted, layout: str, tree: str, names: tuple[str, ...]) -> Listing:
    home = the_home(homes(wanted.root, names, _has_folders), wanted.root, wanted.complain)
    if home is None:
        wanted.complain(wrong(layout, tree, listing(wanted.root), wanted.root))
        return Listing(layout, wanted.root, ())
    records: list[Record] = []
    for split, folder in FOLDERS.items():
        if not (home / folder).is_dir():
            if split != "train":  # A copy for evaluation alone is fine.
                wanted.complain(wrong(layout, tree, "no such folder", home / folder))
            continue
        for path in find_images(home / folder):
            named = _PERSON_CAMERA.match(Path(path).name)
            if named is None or int(named[2]) == 0:
                found = "camera 0" if named else "a name that tells neither"
                wanted.complain(wrong(layout, tree, found, Path(path), _NAME_CURE))
                continue
            records.append(Record(path, int(named[1]), int(named[2]) - 1, 0, split))
    stray = [r for r in records if r.identity == NOBODY and r.split != "gallery"]
    kept = [r for r in records if not (r.identity == NOBODY and r.split != "gallery")]
    return Listing(
        layout=layout,
        home=home,
        records=in_order(kept),
        distractor=NOBODY,
        remarks=(
            *noticed(
                "images of a negative identity (junk), left out",
                [r.path for r in records if r.identity <= JUNK],
                "images of known people",
                "nothing to do: the protocol leaves them out",
            ),
            *_nobody_asked(stray),
        ),
    )


_NAME_CURE = "rename it, remove it, or name another layout in data.init_args.layout"


def _nobody_asked(stray: list[Record]) -> tuple[Remark, ...]:
    return noticed(
        "images of identity 0 outside the gallery, left out",
        [record.path for record in stray],
        "identity 0, which means nobody, in the gallery alone",
        "renumber that person, or move the images to bounding_box_test",
        "warning",
    )


def _has_folders(folder: Path) -> bool:
    return (folder / FOLDERS["gallery"]).is_dir() and (folder / FOLDERS["query"]).is_dir()


def _duke_names(home: Path) -> bool:
    return any(_DUKE_NAME.match(Path(path).name) for path in find_images(home / "query")[:1])
