"""Writers of tiny data sets with one file for each image, in ImageNet's true layouts.

For tests and smoke runs. Every class has a colour of its own, so a network learns a miniature in a
few steps. The same arguments give the same images in every layout, byte for byte.
"""

import colorsys
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

KIT = "ILSVRC2012_devkit_t12/data"


class Photo(NamedTuple):
    """An image of a miniature: its split (`train`, `val`), file name, class and JPEG bytes."""

    split: str
    name: str
    label: int
    data: bytes


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
    for photo in photos(classes, per_class, size, seed):
        write_bytes(root / photo.split / wnid(photo.label) / photo.name, photo.data)


def write_flat_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `train/<wnid>/*.JPEG`, `val/*.JPEG` and `val.txt` with indices from 0.

    The arguments are those of `write_folder_layout`.
    """
    val = _write_images(root, classes, per_class, size, seed)
    lines = (f"{photo.name} {photo.label}\n" for photo in val)
    (root / "val.txt").write_text("".join(lines), "utf-8")


def write_devkit_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `train/<wnid>/*.JPEG`, `val/*.JPEG` and the development kit of ILSVRC 2012.

    The arguments are those of `write_folder_layout`.
    """
    write_kit(root / KIT, _write_images(root, classes, per_class, size, seed), classes)


def write_kaggle_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `ILSVRC/Data/CLS-LOC/{train,val}` and `LOC_val_solution.csv`, as Kaggle packs them.

    The arguments are those of `write_folder_layout`.
    """
    val = _write_images(root / "ILSVRC/Data/CLS-LOC", classes, per_class, size, seed)
    # Each object has a box; an image may have several, all of its class.
    rows = [f"{Path(p.name).stem},{wnid(p.label)} 1 2 3 4 {wnid(p.label)} 5 6 7 8\n" for p in val]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    synsets = "".join(f"{wnid(label)} thing {label}\n" for label in range(classes))
    (root / "LOC_synset_mapping.txt").write_text(synsets)


def write_kit(folder: Path, val: list[Photo], classes: int) -> None:
    """Writes the development kit's ground truth and `meta.mat`.

    As in the true kit, IDs count from 1, do not follow the sorted wnids (here they run backwards),
    and belong to inner nodes of the synset tree too, after the classes.

    Args:
        folder: Where to.
        val: The validation images in the order of their names.
        classes: Number of classes.
    """
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    ids = "".join(f"{classes - photo.label}\n" for photo in val)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(ids, "utf-8")
    leaves: list[tuple[Any, ...]] = [
        (classes - label, wnid(label), f"thing {label}", 0) for label in reversed(range(classes))
    ]
    # The inner node's wnid sorts before all classes: counting it would shift every index.
    inner = (classes + 1, "n00000000", "entity", classes)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    savemat(folder / "meta.mat", {"synsets": np.array([[row] for row in [*leaves, inner]], fields)})


def photos(classes: int, per_class: int, size: int, seed: int = 0) -> Iterator[Photo]:
    """The images of a miniature, training images first, each split in the order of its names."""
    for label in range(classes):
        for number in range(1, per_class + 1):
            data = _jpeg(label, classes, size, [seed, label, number])
            yield Photo("train", f"{wnid(label)}_{number}.JPEG", label, data)
    # Classes are mixed among the validation images, as in the true set.
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), per_class))
    for number, label in enumerate(labels.tolist(), start=1):
        data = _jpeg(label, classes, size, [seed, number])
        yield Photo("val", f"ILSVRC2012_val_{number:08d}.JPEG", label, data)


def wnid(label: int) -> str:
    """Folder name of a miniature's class, in WordNet's form."""
    return f"n{label + 1:08d}"


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_images(root: Path, classes: int, per_class: int, size: int, seed: int) -> list[Photo]:
    """Writes class folders of training images and flat validation images; returns the latter."""
    val = []
    for photo in photos(classes, per_class, size, seed):
        if photo.split == "train":
            write_bytes(root / "train" / wnid(photo.label) / photo.name, photo.data)
        else:
            write_bytes(root / "val" / photo.name, photo.data)
            val.append(photo)
    return val


def _jpeg(label: int, classes: int, size: int, noise: list[int]) -> bytes:
    from PIL import Image

    colour = np.array(colorsys.hsv_to_rgb(label / classes, 0.8, 0.8)) * 255
    pixels = np.random.default_rng(noise).normal(colour, 12, (size, size, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()
