"""`inat2018`, `inat2019`: iNaturalist's images with their annotations as JSON.

The class index of a name is the order of its first appearance among the training annotations, as
in facebookresearch/deit (`datasets.py`).
"""

import json
from pathlib import Path
from typing import Any

from blocks.errors import SuiteError
from datamodules.vision.image_reader import FileSource, Item
from datamodules.vision.imagenet_labels import some
from datamodules.vision.layouts.request import LabelledImages, Request, listing, nothing, wrong

INATURALIST_TREE = """
  root/train_val{year}/<kingdom>/<category>/*.jpg  (or without <kingdom>)
  root/train{year}.json
  root/val{year}.json
  root/categories.json"""


def is_inaturalist(root: Path, year: int) -> bool:
    """Whether the annotations of a year are there."""
    return (root / f"val{year}.json").is_file()


def read_inaturalist(request: Request, year: int) -> LabelledImages:
    """Lists the layout `inat{year}`."""
    root, tree = request.root, INATURALIST_TREE.format(year=year)
    paths = [root / name for name in ("categories.json", f"train{year}.json", f"val{year}.json")]
    if missing := [path.name for path in paths if not path.is_file()]:
        found = f"no {', '.join(missing)}: {listing(root)}"
        raise wrong(f"inat{year}", tree, found, root)
    categories, train, val = (_read(path) for path in paths)
    try:
        names = {int(category["id"]): str(category[request.rank]) for category in categories}
        classes: dict[str, int] = {}
        for annotation in train["annotations"]:
            classes.setdefault(names[annotation["category_id"]], len(classes))
        splits = [
            _items(request, part, names, classes, path) if wanted else None
            for part, path, wanted in ((train, paths[1], request.train), (val, paths[2], True))
        ]
    except (KeyError, TypeError) as error:
        raise SuiteError(
            expected=f"iNaturalist's annotations, with the rank {request.rank} in categories.json",
            found=f"{type(error).__name__}: {error}",
            where=str(root),
            cure="download the JSON files again, or choose another data.init_args.inat_rank",
        ) from error
    sources = [nothing() if items is None else FileSource(items) for items in splits]
    return LabelledImages(tuple(classes), *sources)


def _items(
    request: Request, part: Any, names: dict[int, str], classes: dict[str, int], source: Path
) -> list[Item]:
    category = {note["image_id"]: names[note["category_id"]] for note in part["annotations"]}
    items = []
    for image in part["images"]:
        path = _place(request.root, image["file_name"])
        items.append(Item(str(path), classes.get(category.get(image["id"], ""), -1)))
    if unknown := [item.path for item in items if item.label < 0]:
        request.complain(
            SuiteError(
                expected="a category that training has, for every image",
                found=f"none for {some(unknown)}",
                where=str(source),
                cure="download the annotations of the same year again",
            )
        )
    return [item for item in items if item.label >= 0]


def _place(root: Path, name: str) -> Path:
    """Where an image lies: some copies leave out the folder of its kingdom."""
    path = root / name
    parts = name.split("/")
    if len(parts) == 4 and not (root / parts[0] / parts[1]).is_dir():
        return root / parts[0] / parts[2] / parts[3]
    return path


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SuiteError(
            expected="annotations as JSON",
            found=f"a file that is none ({error})",
            where=str(path),
            cure="download it again",
        ) from error
