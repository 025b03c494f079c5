"""Every layout with its miniature's writer, for the tests of readers, datamodule and verb."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.vision.image_sources import ImageSource
from datamodules.vision.miniature_archives import (
    write_cifar100_layout,
    write_inaturalist_layout,
    write_parquet_layout,
    write_shards_layout,
    write_tars_layout,
)
from datamodules.vision.miniatures import (
    photos,
    write_devkit_layout,
    write_flat_layout,
    write_folder_layout,
    write_kaggle_layout,
)

WRITERS: dict[str, Callable[..., None]] = {
    "folder": write_folder_layout,
    "flat": write_flat_layout,
    "devkit": write_devkit_layout,
    "kaggle": write_kaggle_layout,
    "tars": write_tars_layout,
    "shards": write_shards_layout,
    "parquet": write_parquet_layout,
    "inat2018": write_inaturalist_layout,
    "cifar100": write_cifar100_layout,
}
CLASSES, PER_CLASS, SIZE = 4, 3, 32


def written(layout: str, root: Path, **sizes: int) -> Path:
    """Writes a miniature and returns its root."""
    given = {"classes": CLASSES, "per_class": PER_CLASS, "size": SIZE} | sizes
    root.mkdir(exist_ok=True)
    WRITERS[layout](root, **given)
    return root


def pixels(data: bytes | Image.Image) -> bytes:
    """Decoded pixels of an image."""
    image = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
    return np.asarray(image).tobytes()


def expected(split: str, **sizes: int) -> list[tuple[int, bytes]]:
    """Label and pixels of every image that a writer was asked for, sorted."""
    given = {"classes": CLASSES, "per_class": PER_CLASS, "size": SIZE} | sizes
    return sorted((p.label, pixels(p.data)) for p in photos(**given) if p.split == split)


def found(source: ImageSource) -> list[tuple[int, bytes]]:
    """Label and pixels of every image of a source, sorted."""
    return sorted((int(source.labels[i]), pixels(source.read(i))) for i in range(len(source)))
