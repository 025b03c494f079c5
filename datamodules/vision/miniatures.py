"""Writers of tiny data sets in ImageNet's true on-disk layouts, for tests and smoke runs.

Every class has a colour of its own, so a network learns a miniature in a few steps. The same
arguments give the same files.
"""

import colorsys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_DEVKIT = "ILSVRC2012_devkit_t12/data"


def write_folder_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`.

    Args:
        root: Folder to write to.
        classes: Number of classes.
        per_class: Images of each class, in each split.
        size: Side of the images in pixels.
        seed: Seed of their noise.
    """
    _write_train(root, classes, per_class, size, seed)
    for number, label in _val_order(classes, per_class, seed):
        _write_image(
            root / "val" / wnid(label) / _val_name(number), label, classes, size, [seed, number]
        )


def write_flat_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `train/<wnid>/*.JPEG`, `val/*.JPEG` and `val.txt` with indices from 0.

    The arguments are those of `write_folder_layout`.
    """
    _write_train(root, classes, per_class, size, seed)
    lines = []
    for number, label in _val_order(classes, per_class, seed):
        _write_image(root / "val" / _val_name(number), label, classes, size, [seed, number])
        lines.append(f"{_val_name(number)} {label}\n")
    (root / "val.txt").write_text("".join(lines), "utf-8")


def write_devkit_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `train/<wnid>/*.JPEG`, `val/*.JPEG` and the development kit of ILSVRC 2012.

    As in the true kit, IDs count from 1, do not follow the sorted wnids (here they run backwards),
    and belong to inner nodes of the synset tree too, after the classes.

    The arguments are those of `write_folder_layout`.
    """
    from scipy.io import savemat

    _write_train(root, classes, per_class, size, seed)
    kit = root / _DEVKIT
    kit.mkdir(parents=True, exist_ok=True)
    ids = []
    for number, label in _val_order(classes, per_class, seed):
        _write_image(root / "val" / _val_name(number), label, classes, size, [seed, number])
        ids.append(f"{classes - label}\n")
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(ids), "utf-8")
    leaves: list[tuple[Any, ...]] = [
        (classes - label, wnid(label), f"thing {label}", 0) for label in reversed(range(classes))
    ]
    # The inner node's wnid sorts before all classes: counting it would shift every index.
    inner = (classes + 1, "n00000000", "entity", classes)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    savemat(kit / "meta.mat", {"synsets": np.array([[row] for row in [*leaves, inner]], fields)})


def wnid(label: int) -> str:
    """Folder name of a miniature's class, in WordNet's form."""
    return f"n{label + 1:08d}"


def _write_train(root: Path, classes: int, per_class: int, size: int, seed: int) -> None:
    for label in range(classes):
        for number in range(1, per_class + 1):
            path = root / "train" / wnid(label) / f"{wnid(label)}_{number}.JPEG"
            _write_image(path, label, classes, size, [seed, label, number])


def _val_order(classes: int, per_class: int, seed: int) -> Iterator[tuple[int, int]]:
    """Number and label of each validation image, classes mixed as in the true set."""
    labels = np.repeat(np.arange(classes), per_class)
    shuffled = np.random.default_rng(seed).permutation(labels)
    return ((number, int(label)) for number, label in enumerate(shuffled, start=1))


def _val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def _write_image(path: Path, label: int, classes: int, size: int, noise: list[int]) -> None:
    from PIL import Image

    colour = np.array(colorsys.hsv_to_rgb(label / classes, 0.8, 0.8)) * 255
    pixels = np.random.default_rng(noise).normal(colour, 12, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
