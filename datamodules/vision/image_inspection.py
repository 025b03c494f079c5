"""What a set of labelled images says about itself: facts, and what is wrong with it."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from blocks.errors import SuiteError
from datamodules.inspection import Progress, Remark, remark_of
from datamodules.vision.image_reader import decode_rgb, read_rgb
from datamodules.vision.image_sources import ImageSource
from datamodules.vision.imagenet_labels import some
from datamodules.vision.layouts.archive_files import imagenet_wnids
from datamodules.vision.layouts.request import LabelledImages

# ILSVRC 2012.
_IMAGENET = {"train": 1_281_167, "val": 50_000}
_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "GIF": (".gif",)}
_BATCH = 32
_GLANCE = 64


class Look(NamedTuple):
    """What came of reading one image."""

    place: int
    error: str = ""
    mode: str = ""
    kind: str = ""
    width: int = 0
    height: int = 0
    digest: int = 0


class Looks(Dataset[Look]):
    """Reads images as training would, and keeps no pixel of them.

    Args:
        source: The images.
        indices: Which of them.
    """

    def __init__(self, source: ImageSource, indices: npt.NDArray[np.int64]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Look:
        index = int(self.indices[place])
        try:
            return look(self.source, index)
        except SuiteError as error:
            return Look(index, str(error))


def look(source: ImageSource, index: int) -> Look:
    """Reads and decodes an image.

    Raises:
        SuiteError: It cannot be; the message names it.
    """
    try:
        data = source.read(index)
    except OSError:
        read_rgb(source, index)  # It says why in four parts.
        raise
    if isinstance(data, Image.Image):
        code = data.tobytes()
        mode, kind, (width, height) = data.mode, "", data.size
    else:
        code = data
        width, height = decode_rgb(data, source.name(index), source.cure).size
        mode, kind = _header(data)
    digest = int.from_bytes(hashlib.blake2b(code, digest_size=8).digest(), "little")
    return Look(index, "", mode, kind, width, height, digest)


def describe_images(images: LabelledImages) -> Mapping[str, str | int | float]:
    """Facts about a data set: classes, counts, and the sizes of some images read."""
    facts: dict[str, str | int | float] = {"classes": len(images.class_names)}
    facts["class names"] = some(list(images.class_names))
    for split, source in (("training", images.train), ("validation", images.val)):
        facts[f"{split} images"] = len(source)
        counts = np.bincount(source.labels[source.labels >= 0], minlength=len(images.class_names))
        facts[f"{split} images per class"] = f"{counts.min()} to {counts.max()}"
    glances = [look(images.train, int(index)) for index in _spread(len(images.train), _GLANCE)]
    if glances:
        sides = np.array([(glance.width, glance.height) for glance in glances])
        width, height = np.median(sides, axis=0).astype(int)
        (low, _), (high, _) = sides.min(axis=0), sides.max(axis=0)
        facts["median size"] = f"{width} x {height} pixels, {low} to {high} wide, of {len(glances)}"
    return facts


def validate_images(
    images: LabelledImages, sample: int | None, num_workers: int
) -> Iterator[Remark | Progress]:
    """Reads the images of both splits and yields what is wrong, as it is found.

    Args:
        images: The data set.
        sample: How many images of each split to read at most; `None` for all.
        num_workers: Processes that read.
    """
    yield from _counts(images)
    digests = {}
    splits = {"train": images.train, "val": images.val}
    chosen = {split: _spread(len(source), sample) for split, source in splits.items()}
    total, done = sum(map(len, chosen.values())), 0
    for split, source in splits.items():
        kinds: Counter[str] = Counter()
        digests[split] = np.zeros(len(source), dtype=np.uint64)
        loader = DataLoader(
            Looks(source, chosen[split]),
            batch_size=_BATCH,
            collate_fn=list,
            # Starting processes takes longer than reading a few images.
            num_workers=num_workers if len(chosen[split]) > _GLANCE else 0,
        )
        for batch in loader:
            for seen in batch:
                if seen.error:
                    yield remark_of(SuiteError(seen.error))
                digests[split][seen.place] = seen.digest
                kinds.update(_oddities(seen, source.name(seen.place)))
            done += len(batch)
            yield Progress(done, total, "images")
        for oddity, count in kinds.items():
            yield Remark("note", "JPEG photos in colour", f"{count} {oddity}", split, "")
    if sample is None:
        yield from _twins(images, digests)


def _counts(images: LabelledImages) -> Iterator[Remark]:
    """What labels alone tell."""
    names = images.class_names
    for split, source in (("train", images.train), ("val", images.val)):
        present = np.zeros(len(names), dtype=bool)
        present[source.labels[(source.labels >= 0) & (source.labels < len(names))]] = True
        if absent := [name for name, there in zip(names, present, strict=True) if not there]:
            yield Remark(
                "warning",
                f"{split} images of each of {len(names)} classes",
                f"none of {some(absent)}",
                split,
                "add images, or remove the classes from both splits",
            )
    if len(names) == len(imagenet_wnids()) and names == imagenet_wnids():
        for split, source in (("train", images.train), ("val", images.val)):
            if len(source) != _IMAGENET[split]:
                yield Remark(
                    "warning",
                    f"{_IMAGENET[split]:,} images, as in ILSVRC 2012",
                    f"{len(source):,}",
                    split,
                    "complete the download; results on another number compare with nobody's",
                )


def _oddities(seen: Look, name: str) -> Iterator[str]:
    if seen.mode not in {"RGB", "L", ""}:
        yield f"of mode {seen.mode}, converted to RGB"
    suffixes = _SUFFIXES.get(seen.kind)
    suffix = Path(name).suffix.lower()
    if suffix and suffixes and suffix not in suffixes:
        yield f"{seen.kind} files named {Path(name).suffix}, read by their content"


def _twins(
    images: LabelledImages, digests: Mapping[str, npt.NDArray[np.uint64]]
) -> Iterator[Remark]:
    """Images that are there twice, byte for byte, where that spoils training or its measure."""
    train, val = digests["train"], digests["val"]
    shared = [i for i in np.flatnonzero(np.isin(val, train)).tolist() if val[i]]
    if shared:
        yield Remark(
            "warning",
            "validation images that training does not see",
            f"{len(shared)} that are training images too: "
            + some([images.val.name(index) for index in shared]),
            "val",
            "remove them from one of the splits",
        )
    order = np.argsort(train, kind="stable")
    labels = images.train.labels[order]
    same = (train[order][1:] == train[order][:-1]) & (train[order][1:] > 0)
    clash = order[1:][same & (labels[1:] != labels[:-1])].tolist()
    if clash:
        yield Remark(
            "warning",
            "one class for each training image",
            f"{len(clash)} that stand in another class too: "
            + some([images.train.name(index) for index in clash]),
            "train",
            "decide on one class",
        )


def _header(data: bytes) -> tuple[str, str]:
    """Mode and format of an encoded image."""
    with Image.open(io.BytesIO(data)) as image:
        return image.mode, image.format or ""


def _spread(size: int, number: int | None) -> npt.NDArray[np.int64]:
    """Indices spread evenly over a split, `number` of them at most."""
    if number is None or number >= size:
        return np.arange(size, dtype=np.int64)
    return np.linspace(0, size - 1, number).round().astype(np.int64)
