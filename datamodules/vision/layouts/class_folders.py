"""Layouts with one file for each image, training images in one folder per class.

`folder`  validation images in class folders too.
`flat`    validation images in one folder, their labels in a text file (Caffe's lists).
`devkit`  validation images in one folder, their labels in the development kit of ILSVRC 2012.
`kaggle`  the tree of Kaggle's ImageNet competition, labels in `LOC_val_solution.csv`.

In all of them a class's index is the place of its folder's name in sorted order.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from datamodules.vision.image_reader import FileSource, Item, find_images
from datamodules.vision.imagenet_labels import read_ground_truth, read_label_list, some
from datamodules.vision.layouts.development_kit import GROUND_TRUTH, META, kit_file
from datamodules.vision.layouts.request import (
    LabelledImages,
    Request,
    listing,
    nothing,
    subfolders,
    val_folder,
    wrong,
)

LABEL_LISTS = ("val.txt", "ILSVRC2012_val.txt", "validation.txt")
SOLUTION = "LOC_val_solution.csv"
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")

FOLDER_TREE = """
  root/train/<class>/*.JPEG
  root/val/<class>/*.JPEG  (or validation/)"""
FLAT_TREE = """
  root/train/<class>/*.JPEG
  root/val/*.JPEG  (or validation/)
  root/val.txt  (or ILSVRC2012_val.txt) of lines "<file> <class index from 0, or class name>\""""
DEVKIT_TREE = f"""
  root/train/<wnid>/*.JPEG
  root/val/*.JPEG  (or validation/)
  root/ILSVRC2012_devkit_t12/data/{GROUND_TRUTH}  (or ILSVRC2012_devkit_t12.tar.gz)
  root/ILSVRC2012_devkit_t12/data/{META}"""
KAGGLE_TREE = f"""
  root/ILSVRC/Data/CLS-LOC/train/<wnid>/*.JPEG
  root/ILSVRC/Data/CLS-LOC/val/*.JPEG
  root/{SOLUTION}"""


def is_folder(root: Path) -> bool:
    """Whether validation images lie in class folders."""
    val = val_folder(root)
    return val is not None and bool(subfolders(val))


def is_flat(root: Path) -> bool:
    """Whether there is a list of labels."""
    val = val_folder(root)
    return val is not None and _label_list(val) is not None


def is_devkit(root: Path) -> bool:
    """Whether there is a development kit beside the validation images."""
    val = val_folder(root)
    return val is not None and kit_file(root, GROUND_TRUTH) is not None


def is_kaggle(root: Path) -> bool:
    """Whether the root is Kaggle's, or its folder ILSVRC."""
    return _kaggle_images(root) is not None


def read_folder(request: Request) -> LabelledImages:
    """Lists the layout `folder`."""
    return _read(request, request.root, "folder", FOLDER_TREE)


def read_flat(request: Request) -> LabelledImages:
    """Lists the layout `flat`."""
    return _read(request, request.root, "flat", FLAT_TREE)


def read_devkit(request: Request) -> LabelledImages:
    """Lists the layout `devkit`."""
    return _read(request, request.root, "devkit", DEVKIT_TREE)


def read_kaggle(request: Request) -> LabelledImages:
    """Lists the layout `kaggle`; people often sort its validation images into class folders."""
    images = _kaggle_images(request.root)
    if images is None:
        found = f"no {_KAGGLE[0]}: {listing(request.root)}"
        raise wrong("kaggle", KAGGLE_TREE, found, request.root)
    if is_folder(images):
        return _read(request, images, "folder", FOLDER_TREE)
    return _read(request, images, "kaggle", KAGGLE_TREE)


def _read(request: Request, root: Path, layout: str, tree: str) -> LabelledImages:
    train, val = root / "train", val_folder(root)
    if not train.is_dir() or val is None:
        missing = "val" if train.is_dir() else "train"
        raise wrong(layout, tree, f"no {missing} folder: {listing(root)}", root)
    class_names = subfolders(train)
    if not class_names:
        raise wrong(layout, tree, f"no class folders in {train}", root)
    items = _class_items(request, train, class_names, layout, tree) if request.train else []
    if layout == "folder":
        val_items = _val_in_folders(request, val, class_names)
    elif layout == "devkit":
        val_items = _val_of_kit(request, val, class_names)
    else:
        val_items = _val_of_list(request, val, class_names, layout, tree)
    return LabelledImages(
        class_names, FileSource(items) if request.train else nothing(), FileSource(val_items)
    )


def _val_in_folders(request: Request, val: Path, class_names: tuple[str, ...]) -> list[Item]:
    names = subfolders(val)
    missing, extra = set(class_names) - set(names), set(names) - set(class_names)
    if extra or (missing and request.strict_classes):
        error = wrong(
            "folder",
            FOLDER_TREE,
            f"only in train {some(sorted(missing))}; only in {val.name} {some(sorted(extra))}",
            val.parent,
            cure="add or remove folders until both hold the same classes: a class's index is its "
            "place among the folders of train"
            + ("" if extra else "; or set data.init_args.strict_classes to false"),
        )
        request.complain(error)
    known = tuple(name if name in names else "" for name in class_names)
    return _class_items(request, val, known, "folder", FOLDER_TREE)


def _val_of_list(
    request: Request, val: Path, class_names: tuple[str, ...], layout: str, tree: str
) -> list[Item]:
    if layout == "kaggle":
        source, absent_file = _solution(val.parent), f"no {SOLUTION}"
    else:
        source, absent_file = _label_list(val), f"none of {', '.join(LABEL_LISTS)}"
    if source is None:
        raise wrong(layout, tree, f"validation images without labels: {absent_file}", val.parent)
    if layout == "kaggle":
        labels = _read_solution(source, class_names)
    else:
        labels = read_label_list(source, class_names)
    images = {Path(path).name: path for path in find_images(val)}
    if images.keys() != labels.keys():
        unlisted, absent = images.keys() - labels.keys(), labels.keys() - images.keys()
        error = wrong(
            layout,
            tree,
            f"images without a label {some(sorted(unlisted))}; "
            f"labels without an image {some(sorted(absent))}",
            source,
            cure="complete the download, or make the list name exactly the images in the folder",
        )
        request.complain(error)
    return [Item(path, labels[name]) for name, path in images.items() if name in labels]


def _val_of_kit(request: Request, val: Path, class_names: tuple[str, ...]) -> list[Item]:
    truth, meta = kit_file(val.parent, GROUND_TRUTH), kit_file(val.parent, META)
    if truth is None or meta is None:
        found = f"no {GROUND_TRUTH if truth is None else META}"
        raise wrong("devkit", DEVKIT_TREE, found, val.parent)
    labels = read_ground_truth(truth, meta, class_names)
    images = find_images(val)
    if len(labels) != len(images):
        error = wrong(
            "devkit",
            DEVKIT_TREE,
            f"{len(labels)} labels for {len(images)} images",
            truth,
            cure="complete the download: line i of the file is the label of the i-th image by name",
        )
        request.complain(error)
        return []  # Nobody knows whose labels the others are.
    return [Item(path, label) for path, label in zip(images, labels, strict=True)]


def _class_items(
    request: Request, folder: Path, class_names: tuple[str, ...], layout: str, tree: str
) -> list[Item]:
    """Images of class folders; a class without a name has none."""
    items = []
    for label, name in enumerate(class_names):
        paths = find_images(folder / name) if name else []
        if name and not paths and request.strict_classes:
            error = wrong(
                layout,
                tree,
                f"no image in {folder / name}",
                folder.parent,
                cure="complete the download, or remove the empty folder; or set "
                "data.init_args.strict_classes to false",
            )
            request.complain(error)
        items += [Item(path, label) for path in paths]
    return items


def _read_solution(source: Path, class_names: tuple[str, ...]) -> Mapping[str, int]:
    """Class index by file name; the wnid is the first word of the column PredictionString."""
    place = {name: index for index, name in enumerate(class_names)}
    labels = {}
    with source.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            wnid = ((row.get("PredictionString") or "").split() or [""])[0]
            if not row.get("ImageId") or wnid not in place:
                raise wrong(
                    "kaggle",
                    KAGGLE_TREE,
                    f"a row {','.join(str(value) for value in row.values())!r}, whose class is no "
                    "folder of train",
                    source,
                    cure="download the file again, or complete the train folder",
                )
            labels[f"{row['ImageId']}.JPEG"] = place[wnid]
    return labels


def _kaggle_images(root: Path) -> Path | None:
    if root.name == "CLS-LOC" and (root / "train").is_dir():
        return root
    return next((root / name for name in _KAGGLE if (root / name).is_dir()), None)


def _solution(images: Path) -> Path | None:
    """The solution lies in the folder that was unpacked, a few levels above the images."""
    above = [images, *list(images.parents)[:3]]
    return next((folder / SOLUTION for folder in above if (folder / SOLUTION).is_file()), None)


def _label_list(val: Path) -> Path | None:
    candidates = (folder / name for folder in (val.parent, val) for name in LABEL_LISTS)
    return next((path for path in candidates if path.is_file()), None)
