"""`folders`: your own images, a folder for each identity.

`train/<id>/*`, `query/<id>/*`, `gallery/<id>/*`. Identities are numbers or names; -1 is junk. The
camera is told by the file's name, if a pattern says where; otherwise queries and gallery count as
two cameras, so that the camera rule removes no match.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from blocks.errors import SuiteError
from datamodules.inspection import Remark
from datamodules.vision.image_reader import find_images
from datamodules.vision.imagenet_labels import some
from datamodules.vision.layouts.request import listing, subfolders, wrong
from datamodules.vision.retrieval.layouts.homes import noticed
from datamodules.vision.retrieval.records import (
    JUNK,
    SPLITS,
    Listing,
    Record,
    Split,
    Wanted,
    in_order,
    numbered,
    places,
)

FOLDERS_TREE = """
  root/train/<id>/*   with the camera in the file's name, if camera_pattern says where,
  root/query/<id>/*   for instance '_c(\\d+)' for 000451_c3.jpg
  root/gallery/<id>/*"""

CAMERA_WITHOUT_NAMES: dict[Split, int] = {"train": 0, "query": 0, "gallery": 1}


def is_folders(root: Path) -> bool:
    """Whether queries and gallery lie in folders of identities."""
    return all((root / s).is_dir() and subfolders(root / s) != () for s in SPLITS[1:])


def read_folders(wanted: Wanted) -> Listing:
    """Lists the layout `folders`."""
    root = wanted.root
    found: list[tuple[Split, str, str]] = []
    remarks: list[Remark] = []
    for split in SPLITS:
        if not (root / split).is_dir():
            if split != "train":  # A copy for evaluation alone is fine.
                missing = "no such folder" if root.is_dir() else listing(root)
                wanted.complain(wrong("folders", FOLDERS_TREE, missing, root / split))
            continue
        images = {name: find_images(root / split / name) for name in subfolders(root / split)}
        found += [(split, name, path) for name, paths in images.items() for path in paths]
        remarks += noticed(
            "identity folders without an image, left out",
            [str(root / split / name) for name, paths in images.items() if not paths],
            "images of every identity",
            "remove the empty folders, or complete them",
            "warning",
        )
    number = numbered(name for _, name, _ in found)
    remarks += same_number(number, root)
    cameras = _cameras([path for _, _, path in found], wanted)
    records = [
        Record(path, number[name], cameras.get(path, CAMERA_WITHOUT_NAMES[split]), 0, split)
        for split, name, path in found
        if not wanted.camera_pattern or path in cameras
    ]
    remarks += noticed(
        "images of a negative identity (junk), left out",
        [record.path for record in records if record.identity <= JUNK],
        "images of known identities",
        "nothing to do, if -1 was meant for junk",
    )
    return Listing("folders", root, in_order(records), remarks=tuple(remarks))


def same_number(number: dict[str, int], where: Path) -> Iterable[Remark]:
    """Remarks on names such as 7 and 007, which are one identity."""
    count = Counter(number.values())
    for value in sorted(value for value, times in count.items() if times > 1):
        names = sorted(name for name, own in number.items() if own == value)
        yield Remark(
            "warning",
            "one name for each identity",
            f"{some(names)}, which are the same number",
            str(where),
            "merge them if they are one identity; else give one a new number",
        )


def _cameras(paths: list[str], wanted: Wanted) -> dict[str, int]:
    """Camera of each image, counted from 0 in the order of their numbers or names."""
    if wanted.camera_pattern is None:
        return {}
    try:
        pattern = re.compile(wanted.camera_pattern)
        if pattern.groups == 0:
            raise re.error("no group in parentheses")
    except re.error as error:
        raise SuiteError(
            expected="a regular expression whose first group is the camera",
            found=f"{wanted.camera_pattern!r} ({error})",
            where="data.init_args.camera_pattern",
            cure="write for instance '_c(\\d+)', or null without cameras",
        ) from error
    told = {path: pattern.search(Path(path).name) for path in paths}
    if silent := [path for path, match in told.items() if match is None]:
        wanted.complain(
            SuiteError(
                expected=f"file names in which {wanted.camera_pattern!r} finds the camera",
                found=f"{len(silent)} others of {len(paths)}",
                where=f"first {silent[0]}",
                cure="correct data.init_args.camera_pattern, or set it to null without cameras",
            )
        )
    cameras = {path: match[1] for path, match in told.items() if match is not None}
    place = places(cameras.values())
    return {path: place[camera] for path, camera in cameras.items()}
