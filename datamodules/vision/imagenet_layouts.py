"""The layouts in which people keep ImageNet, or a data set of their own made like it.

`folder`  training and validation images in one folder per class.
`flat`    validation images in one folder, their labels in a text file (Caffe's lists).
`devkit`  validation images in one folder, their labels in the development kit of ILSVRC 2012.

In all of them a class's index is the place of its folder's name in sorted order.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from blocks.errors import SuiteError
from datamodules.vision.image_reader import Item, find_images
from datamodules.vision.imagenet_labels import read_ground_truth, read_label_list, some

Layout = Literal["folder", "flat", "devkit"]

_VAL_FOLDERS = ("val", "validation")
_LABEL_LISTS = ("val.txt", "ILSVRC2012_val.txt", "validation.txt")
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"

_TREES: dict[Layout, str] = {
    "folder": """
  root/train/<class>/*.JPEG
  root/val/<class>/*.JPEG  (or validation/)""",
    "flat": """
  root/train/<class>/*.JPEG
  root/val/*.JPEG  (or validation/)
  root/val.txt  (or ILSVRC2012_val.txt) of lines "<file> <class index from 0, or class name>\"""",
    "devkit": f"""
  root/train/<wnid>/*.JPEG
  root/val/*.JPEG  (or validation/)
  root/ILSVRC2012_devkit_t12/data/{_GROUND_TRUTH}
  root/ILSVRC2012_devkit_t12/data/{_META}""",
}


class LabelledFiles(NamedTuple):
    """What a data set holds: class names in index order, and the files of both splits."""

    class_names: tuple[str, ...]
    train: list[Item]
    val: list[Item]


def read_layout(
    root: Path, layout: Layout | Literal["auto"] = "auto", *, train: bool = True
) -> LabelledFiles:
    """Lists the files of a data set.

    Args:
        root: Folder that holds `train` and `val`.
        layout: How the files lie, or `auto` to look.
        train: Whether to list the training files too. Their folders are listed in any case, for
            the class names: a class's index must not depend on which validation images are there.

    Raises:
        SuiteError: Something is missing or contradicts itself; the message shows the tree.
    """
    if layout == "auto":
        layout = detect_layout(root)
    train_folder = _folder(root, layout, "train")
    class_names = _subfolders(train_folder)
    if not class_names:
        raise _wrong(layout, f"no class folders in {train_folder}", root)
    train_items = _read_classes(train_folder, class_names, layout) if train else []
    val_items = _VAL_READERS[layout](_folder(root, layout, *_VAL_FOLDERS), class_names)
    return LabelledFiles(class_names, train_items, val_items)


def detect_layout(root: Path) -> Layout:
    """Tells the layout of a data set from its validation folder and what lies beside it.

    Raises:
        SuiteError: The folder follows none of the layouts; the message shows them all.
    """
    val = next((root / name for name in _VAL_FOLDERS if (root / name).is_dir()), None)
    if val is not None:
        if _subfolders(val):
            return "folder"
        if _beside(val, *_LABEL_LISTS):
            return "flat"
        if _beside(val, _GROUND_TRUTH):
            return "devkit"
    trees = "\n".join(f" {name}:{tree}" for name, tree in _TREES.items())
    raise SuiteError(
        expected=f"one of these trees\n{trees}",
        found=f"{val} with neither class folders nor a label file" if val else _listing(root),
        where=str(root),
        cure="point data.init_args.root at the folder that holds train and val",
    )


def _read_class_folders(val: Path, class_names: tuple[str, ...]) -> list[Item]:
    names = _subfolders(val)
    if names != class_names:
        missing, extra = set(class_names) - set(names), set(names) - set(class_names)
        raise _wrong(
            "folder",
            f"only in train {some(sorted(missing))}; only in {val.name} {some(sorted(extra))}",
            val.parent,
            cure="add or remove folders until both hold the same classes: a class's index is its "
            "place among the folders",
        )
    return _read_classes(val, class_names, "folder")


def _read_flat(val: Path, class_names: tuple[str, ...]) -> list[Item]:
    source = _beside(val, *_LABEL_LISTS)
    if source is None:
        raise _wrong("flat", f"none of {', '.join(_LABEL_LISTS)}", val.parent)
    labels = read_label_list(source, class_names)
    images = {Path(path).name: path for path in find_images(val)}
    if images.keys() != labels.keys():
        unlisted, absent = images.keys() - labels.keys(), labels.keys() - images.keys()
        raise _wrong(
            "flat",
            f"images without a label {some(sorted(unlisted))}; "
            f"labels without an image {some(sorted(absent))}",
            source,
            cure="complete the download, or make the list name exactly the images in the folder",
        )
    return [Item(path, labels[name]) for name, path in images.items()]


def _read_devkit(val: Path, class_names: tuple[str, ...]) -> list[Item]:
    truth, meta = _beside(val, _GROUND_TRUTH), _beside(val, _META)
    if truth is None or meta is None:
        raise _wrong("devkit", f"no {_GROUND_TRUTH if truth is None else _META}", val.parent)
    labels = read_ground_truth(truth, meta, class_names)
    images = find_images(val)
    if len(labels) != len(images):
        raise _wrong(
            "devkit",
            f"{len(labels)} labels for {len(images)} images",
            truth,
            cure="complete the download: line i of the file is the label of the i-th image by name",
        )
    return [Item(path, label) for path, label in zip(images, labels, strict=True)]


_VAL_READERS = {"folder": _read_class_folders, "flat": _read_flat, "devkit": _read_devkit}


def _read_classes(folder: Path, class_names: tuple[str, ...], layout: Layout) -> list[Item]:
    items = []
    for label, name in enumerate(class_names):
        paths = find_images(folder / name)
        if not paths:
            raise _wrong(
                layout,
                f"no image in {folder / name}",
                folder.parent,
                cure="complete the download, or remove the empty folder",
            )
        items += [Item(path, label) for path in paths]
    return items


def _subfolders(folder: Path) -> tuple[str, ...]:
    # Hidden folders (.DS_Store, .ipynb_checkpoints) are nobody's classes.
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _folder(root: Path, layout: Layout, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise _wrong(layout, f"no {names[0]} folder: {_listing(root)}", root)


def _beside(val: Path, *names: str) -> Path | None:
    """The first of the named files that lies in the root, the validation folder or the devkit."""
    root, kit = val.parent, val.parent / "ILSVRC2012_devkit_t12"
    candidates = (folder / name for folder in (root, val, kit / "data", kit) for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _wrong(layout: Layout, found: str, where: Path, cure: str = "") -> SuiteError:
    return SuiteError(
        expected=f"the layout {layout}{_TREES[layout]}",
        found=found,
        where=str(where),
        cure=cure
        or "complete the tree, point data.init_args.root at it, or name its true layout in "
        "data.init_args.layout",
    )


def _listing(root: Path) -> str:
    if not root.is_dir():
        return "no such folder"
    return f"a folder with {some(sorted(entry.name for entry in root.iterdir()))}"
