"""Which archives of a folder hold which split, and the names of their classes."""

import re
from collections.abc import Callable, Sequence
from glob import glob
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.vision.layouts.request import VAL_FOLDERS, Request, listing

CLASSES = "classes.txt"
"""Names of the classes, one a line, in index order, beside archives that store indices."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NAMES = {"train": ("train",), "val": VAL_FOLDERS}
_ORIGINAL = "ILSVRC2012_"


def split_files(root: Path, split: str, suffix: str) -> list[Path]:
    """Archives whose name or folder says that they belong to a split, sorted; perhaps none.

    Args:
        root: Folder to look in, with its folders `data` and `default`.
        split: `train` or `val`.
        suffix: `.tar` or `.parquet`.
    """
    for folder in (root, root / "data", root / "default"):
        named = [
            path
            for path in sorted(folder.glob(f"*{suffix}"))
            if split in path.name.lower() and not path.name.startswith((_ORIGINAL, "."))
        ]
        below = [folder / name for name in _NAMES[split] if (folder / name).is_dir()]
        inside = [path for place in below for path in sorted(place.glob(f"*{suffix}"))]
        if named or inside:
            return named or [path for path in inside if not path.name.startswith(".")]
    return []


def chosen_files(request: Request, split: str, suffix: str, tree: str) -> list[Path]:
    """The archives of a split, by the request's pattern or by their usual names.

    Raises:
        SuiteError: None, or one that a brace pattern names is missing.
    """
    pattern = request.train_files if split == "train" else request.val_files
    if pattern is None:
        files = split_files(request.root, split, suffix)
    else:
        files = [path for name in expand(pattern) for path in _matches(request.root, name)]
    if not files:
        raise SuiteError(
            expected=f"{suffix} files of the split {split}{tree}",
            found=f"nothing that matches {pattern}" if pattern else listing(request.root),
            where=str(request.root),
            cure=f"complete the download, or give their pattern in data.init_args.{split}_files, "
            f"such as imagenet1k-{split}-{{0000..1023}}{suffix}",
        )
    return files


def expand(pattern: str) -> list[str]:
    """Names that a brace pattern stands for: `a-{00..02}` is a-00, a-01 and a-02."""
    pieces = _RANGE.split(pattern)
    fixed, lows, highs = pieces[0::3], pieces[1::3], pieces[2::3]
    ranges = [
        [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
        for low, high in zip(lows, highs, strict=True)
    ]
    return [
        fixed[0] + "".join(number + text for number, text in zip(numbers, fixed[1:], strict=True))
        for numbers in product(*ranges)
    ]


def class_names(
    root: Path, files: Sequence[Path], labels: Callable[[], npt.NDArray[np.int64]]
) -> tuple[str, ...]:
    """Names of the classes that archives number.

    They stand in `classes.txt` beside the archives; 1,000 classes in files called imagenet have
    ImageNet's names; else the numbers are the names.

    Args:
        root: Folder of the data set.
        files: The training archives.
        labels: Gives all training labels, where nothing else tells how many classes there are.
    """
    listed = root / CLASSES
    if listed.is_file():
        return tuple(listed.read_text("utf-8").splitlines())
    count = int(labels().max(initial=-1)) + 1
    if count == 1000 and "imagenet" in str(files[0]).lower():
        return imagenet_wnids()
    return tuple(str(number) for number in range(count))


def imagenet_wnids() -> tuple[str, ...]:
    """WordNet names of the 1,000 classes of ILSVRC 2012, in index order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def _matches(root: Path, name: str) -> list[Path]:
    if any(mark in name for mark in "*?["):
        return sorted(root / found for found in glob(name, root_dir=root))
    if not (root / name).is_file():
        raise SuiteError(
            expected="every file that the pattern names",
            found="no such file",
            where=str(root / name),
            cure="complete the download, or correct the pattern in data.init_args",
        )
    return [root / name]
