"""What is asked of the reader of a layout, what it answers, and the words of its refusals."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from blocks.errors import SuiteError
from datamodules.vision.image_reader import FileSource
from datamodules.vision.image_sources import ImageSource
from datamodules.vision.imagenet_labels import some

Rank = Literal["kingdom", "phylum", "class", "order", "supercategory", "family", "genus", "name"]

VAL_FOLDERS = ("val", "validation")


def _raise(error: SuiteError) -> None:
    raise error


@dataclass(frozen=True)
class Request:
    """Which data set to list, and how.

    Args:
        root: Its folder.
        train: Whether to list the training images too. Their classes are looked up in any case: a
            class's index must not depend on which validation images are there.
        train_files: Brace or glob pattern of the training archives, below `root`; null for the
            usual names.
        val_files: The same of the validation archives.
        strict_classes: Whether a class folder may neither be empty nor be missing among the
            validation images.
        rank: Which rank of iNaturalist's taxonomy the classes are.
        complain: Hears what is wrong. It may raise, or go on listening; then the rest is listed.
    """

    root: Path
    train: bool = True
    train_files: str | None = None
    val_files: str | None = None
    strict_classes: bool = True
    rank: Rank = "name"
    complain: Callable[[SuiteError], None] = _raise


class LabelledImages(NamedTuple):
    """What a data set holds: class names in index order, and the images of both splits."""

    class_names: tuple[str, ...]
    train: ImageSource
    val: ImageSource


def nothing() -> ImageSource:
    """The images of a split that was not asked for."""
    return FileSource([])


def wrong(layout: str, tree: str, found: str, where: Path, cure: str = "") -> SuiteError:
    """A refusal that shows the layout's tree."""
    return SuiteError(
        expected=f"the layout {layout}{tree}",
        found=found,
        where=str(where),
        cure=cure
        or "complete the tree, point data.init_args.root at it, or name its true layout in "
        "data.init_args.layout",
    )


def listing(root: Path) -> str:
    """What lies in a folder, in a few words."""
    if not root.is_dir():
        return "no such folder"
    return f"a folder with {some(sorted(entry.name for entry in root.iterdir()))}"


def subfolders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted; hidden ones (.DS_Store) are nobody's classes."""
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def val_folder(root: Path) -> Path | None:
    """The folder of the validation images."""
    return next((root / name for name in VAL_FOLDERS if (root / name).is_dir()), None)
