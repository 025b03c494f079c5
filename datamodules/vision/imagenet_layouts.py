"""The layouts in which people keep ImageNet, or a data set of their own made like it.

`folder`  training and validation images in one folder per class.
`flat`    validation images in one folder, their labels in a text file (Caffe's lists).
`devkit`  validation images in one folder, their labels in the development kit of ILSVRC 2012.

In all of them a class's index is the place of its folder's name in sorted order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from blocks.errors import SuiteError
from datamodules.vision.image_reader import Item, find_images

Layout = Literal["folder", "flat", "devkit"]

_LABEL_LISTS = ("val.txt", "ILSVRC2012_val.txt", "validation.txt")
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"

_TREES = {
    "folder": """
  root/train/<class>/*.JPEG
  root/val/<class>/*.JPEG            (or validation/)""",
    "flat": """
  root/train/<class>/*.JPEG
  root/val/*.JPEG                    (or validation/)
  root/val.txt                       lines "<file> <class index from 0, or class name>\"""",
    "devkit": f"""
  root/train/<wnid>/*.JPEG
  root/val/*.JPEG                    (or validation/)
  root/ILSVRC2012_devkit_t12/data/{_GROUND_TRUTH}
  root/ILSVRC2012_devkit_t12/data/{_META}""",
}


class LabelledFiles(NamedTuple):
    """What a layout holds: class names in index order and the files of both splits."""

    class_names: tuple[str, ...]
    train: list[Item]
    val: list[Item]


def read_layout(
    root: Path, layout: Layout | Literal["auto"] = "auto", *, train: bool = True, val: bool = True
) -> LabelledFiles:
    """Lists the files of a data set.

    Args:
        root: Folder that holds `train` and `val`.
        layout: How the files lie, or `auto` to look.
        train: Whether to list the training files; their folders are listed in any case, for the
            class names.
        val: Whether to list the validation files.

    Raises:
        SuiteError: Something is missing or contradicts itself; the message shows the tree.
    """
    if layout == "auto":
        layout = detect_layout(root)
    train_folder = _existing(root, layout, "train")
    class_names = _subfolders(train_folder)
    if not class_names:
        raise _wrong(layout, f"no class folders in {train_folder}", root)
    train_items = _read_classes(train_folder, class_names, layout) if train else []
    val_items: list[Item] = []
    if val:
        val_folder = _existing(root, layout, "val", "validation")
        val_items = _VAL_READERS[layout](val_folder, class_names)
    return LabelledFiles(class_names, train_items, val_items)


def detect_layout(root: Path) -> Layout:
    """Tells the layout of a data set from its validation folder.

    Raises:
        SuiteError: The folder follows none of the layouts.
    """
    val = next((root / name for name in ("val", "validation") if (root / name).is_dir()), None)
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
        found=f"{val}, which has neither class folders nor a label file" if val else _listing(root),
        where=str(root),
        cure="point data.init_args.root at the folder that holds train and val",
    )


def _read_class_folders(val: Path, class_names: tuple[str, ...]) -> list[Item]:
    names = _subfolders(val)
    if names != class_names:
        missing = sorted(set(class_names) - set(names))
        extra = sorted(set(names) - set(class_names))
        raise _wrong(
            "folder",
            f"classes in train and {val.name} differ: "
            f"only in train {_some(missing)}, only in {val.name} {_some(extra)}",
            val.parent,
            cure="add or remove folders until both hold the same classes: a class's index is its "
            "place among the folders",
        )
    return _read_classes(val, class_names, "folder")


def _read_flat(val: Path, class_names: tuple[str, ...]) -> list[Item]:
    label_list = _beside(val, *_LABEL_LISTS)
    if label_list is None:
        raise _wrong("flat", f"none of {', '.join(_LABEL_LISTS)}", val.parent)
    lines = [line.rsplit(maxsplit=1) for line in label_list.read_text("utf-8").splitlines() if line]
    if any(len(line) != 2 for line in lines):
        raise _wrong("flat", "a line without a label", label_list)
    # Lists made elsewhere may carry a folder before the file's name.
    labels = dict(
        zip(
            (Path(name).name for name, _ in lines),
            _class_indices([label for _, label in lines], class_names, label_list),
            strict=True,
        )
    )
    images = {Path(path).name: path for path in find_images(val)}
    if images.keys() != labels.keys():
        unlisted, absent = sorted(images.keys() - labels), sorted(labels.keys() - images)
        raise _wrong(
            "flat",
            f"images without a label {_some(unlisted)}, labels without an image {_some(absent)}",
            label_list,
            cure="complete the download, or the list: exactly the images in the folder",
        )
    return [Item(path, labels[name]) for name, path in images.items()]


def _class_indices(labels: list[str], class_names: tuple[str, ...], source: Path) -> list[int]:
    place = {name: index for index, name in enumerate(class_names)}
    if all(label in place for label in labels):
        return [place[label] for label in labels]
    if not all(label.isdecimal() for label in labels):
        unknown = sorted({label for label in labels if label not in place})
        raise _wrong("flat", f"labels that are no class of train: {_some(unknown)}", source)
    indices = [int(label) for label in labels]
    if min(indices) == 1 and max(indices) == len(class_names):
        raise _wrong(
            "flat",
            f"indices that count from 1 (1 to {len(class_names)})",
            source,
            cure="if they follow the sorted class names, subtract 1 from each; if they are "
            "ILSVRC2012_IDs, which follow another order, use layout: devkit",
        )
    if max(indices) >= len(class_names):
        raise _wrong(
            "flat", f"index {max(indices)} with {len(class_names)} classes in train", source
        )
    return indices


def _read_devkit(val: Path, class_names: tuple[str, ...]) -> list[Item]:
    truth, meta = _beside(val, _GROUND_TRUTH), _beside(val, _META)
    if truth is None or meta is None:
        raise _wrong("devkit", f"no {_GROUND_TRUTH if truth is None else _META}", val.parent)
    wnid_of = _leaf_synsets(meta)
    if tuple(sorted(wnid_of.values())) != class_names:
        differ = sorted(set(wnid_of.values()) ^ set(class_names))
        raise _wrong(
            "devkit", f"synsets in only one of {meta.name} and train: {_some(differ)}", meta
        )
    ids = [int(word) for word in truth.read_text("utf-8").split()]
    images = find_images(val)
    if len(ids) != len(images):
        raise _wrong(
            "devkit",
            f"{len(ids)} labels for {len(images)} images",
            truth,
            cure="complete the download: line i of the file is the label of the i-th image by name",
        )
    # Line i belongs to image i. IDs do not follow the sorted wnids: they go through meta.mat.
    index_of = {key: class_names.index(wnid) for key, wnid in wnid_of.items()}
    if not index_of.keys() >= set(ids):
        unknown = sorted(map(str, set(ids) - index_of.keys()))
        raise _wrong("devkit", f"IDs that {meta.name} does not know: {_some(unknown)}", truth)
    return [Item(path, index_of[key]) for path, key in zip(images, ids, strict=True)]


def _leaf_synsets(meta: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> wnid of the classes; inner nodes of the tree are left out."""
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(meta, squeeze_me=True)["synsets"]
        return {
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"])
            for synset in synsets
            if int(synset["num_children"]) == 0
        }
    except Exception as error:  # scipy raises almost anything on a damaged file.
        raise _wrong("devkit", f"a {_META} that cannot be read ({error})", meta) from error


_VAL_READERS = {"folder": _read_class_folders, "flat": _read_flat, "devkit": _read_devkit}


def _read_classes(folder: Path, class_names: Sequence[str], layout: Layout) -> list[Item]:
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
    return tuple(
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    )


def _existing(root: Path, layout: Layout, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise _wrong(layout, f"no {names[0]} folder: {_listing(root)}", root)


def _beside(val: Path, *names: str) -> Path | None:
    root = val.parent
    kit = root / "ILSVRC2012_devkit_t12"
    for folder in (root, val, kit / "data", kit, root / "data"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def _wrong(layout: Layout, found: str, where: Path, cure: str = "") -> SuiteError:
    return SuiteError(
        expected=f"the layout {layout}{_TREES[layout]}",
        found=found,
        where=str(where),
        cure=cure
        or "complete the tree, point data.init_args.root at it, or set "
        "data.init_args.layout to another layout",
    )


def _listing(root: Path) -> str:
    if not root.is_dir():
        return "no such folder"
    return f"a folder with {_some(sorted(entry.name for entry in root.iterdir()))}"


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
