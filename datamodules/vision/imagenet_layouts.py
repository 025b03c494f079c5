"""The layouts in which people keep ImageNet and its like, or a data set of their own made like it.

A layout knows whether a folder follows it and lists the labelled images of both splits. Those of
`class_folders` have a file for each image; `tars`, `shards` and `parquet` are read in place.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from blocks.errors import SuiteError
from datamodules.vision.layouts import (
    cifar100,
    class_folders,
    inaturalist,
    parquet,
    shards,
    tars,
)
from datamodules.vision.layouts.request import LabelledImages, Request, listing, val_folder

LayoutName = Literal[
    "folder", "flat", "devkit", "kaggle", "tars", "shards", "parquet", "cifar100", "inat2018",
    "inat2019",
]  # fmt: skip

# Their image lists are gathered from archives once; one process should do it before all others.
INDEXED: frozenset[LayoutName] = frozenset({"tars", "shards", "parquet"})


class Layout(NamedTuple):
    """A way in which a data set lies on the disk: its tree in words, its test, its reader."""

    tree: str
    follows: Callable[[Path], bool]
    read: Callable[[Request], LabelledImages]


def _inaturalist(year: int) -> Layout:
    return Layout(
        inaturalist.INATURALIST_TREE.format(year=year),
        partial(inaturalist.is_inaturalist, year=year),
        partial(inaturalist.read_inaturalist, year=year),
    )


# In the order in which they are looked for: a folder may hold the traces of several.
LAYOUTS: dict[LayoutName, Layout] = {
    "kaggle": Layout(class_folders.KAGGLE_TREE, class_folders.is_kaggle, class_folders.read_kaggle),
    "folder": Layout(class_folders.FOLDER_TREE, class_folders.is_folder, class_folders.read_folder),
    "flat": Layout(class_folders.FLAT_TREE, class_folders.is_flat, class_folders.read_flat),
    "shards": Layout(shards.SHARDS_TREE, shards.is_shards, shards.read_shards),
    "parquet": Layout(parquet.PARQUET_TREE, parquet.is_parquet, parquet.read_parquet),
    "devkit": Layout(class_folders.DEVKIT_TREE, class_folders.is_devkit, class_folders.read_devkit),
    "tars": Layout(tars.TARS_TREE, tars.is_tars, tars.read_tars),
    "inat2018": _inaturalist(2018),
    "inat2019": _inaturalist(2019),
    "cifar100": Layout(cifar100.CIFAR100_TREE, cifar100.is_cifar100, cifar100.read_cifar100),
}
assert set(LAYOUTS) == set(get_args(LayoutName))


def read_layout(request: Request, layout: LayoutName | Literal["auto"] = "auto") -> LabelledImages:
    """Lists the images of a data set.

    Args:
        request: Which data set, and what of it.
        layout: How its files lie, or `auto` to look.

    Raises:
        SuiteError: Something is missing or contradicts itself; the message shows the tree.
    """
    name = detect_layout(request.root) if layout == "auto" else layout
    images = LAYOUTS[name].read(request)
    for split, source in (("train", images.train), ("validation", images.val)):
        unfit = (source.labels < 0) | (source.labels >= len(images.class_names))
        if unfit.any():
            first = int(unfit.argmax())
            error = SuiteError(
                expected=f"{split} labels from 0 to {len(images.class_names) - 1}",
                found=f"{int(unfit.sum())} others, such as {source.labels[first]}",
                where=source.name(first),
                cure="take both splits of the same data set; if indices count from 1, subtract 1",
            )
            request.complain(error)
        if not len(source) and (split == "validation" or request.train):
            request.complain(_empty(split, request.root))
    return images


def detect_layout(root: Path) -> LayoutName:
    """Tells the layout of a data set from the names of its files.

    Raises:
        SuiteError: The folder follows none of the layouts, or both of two that are years of one;
            the message shows them all.
    """
    followed = (name for name, layout in LAYOUTS.items() if root.is_dir() and layout.follows(root))
    if (name := next(followed, None)) is not None:
        if name == "inat2018" and LAYOUTS["inat2019"].follows(root):
            raise SuiteError(
                expected="one year of iNaturalist",
                found="inat2018 and inat2019",
                where=str(root),
                cure="name the year in data.init_args.layout",
            )
        return name
    val = val_folder(root)
    trees = "\n".join(f" {name}:{layout.tree}" for name, layout in LAYOUTS.items())
    raise SuiteError(
        expected=f"one of these trees\n{trees}",
        found=f"{val} with neither class folders nor a label file" if val else listing(root),
        where=str(root),
        cure="point data.init_args.root at the folder that holds train and val",
    )


def _empty(split: str, root: Path) -> SuiteError:
    return SuiteError(
        expected=f"{split} images",
        found="none",
        where=str(root),
        cure="complete the download",
    )
