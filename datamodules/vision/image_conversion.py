"""Writes a data set of images into archives: WebDataset shards, or parquet tables as on hubs.

The encoded images are copied byte for byte. An archive that is there is complete, so an interrupted
call goes on with the next one.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from blocks.errors import SuiteError
from blocks.files import atomic_path, write_json, write_text
from datamodules.info import digest
from datamodules.inspection import Progress
from datamodules.vision.image_sources import ImageSource
from datamodules.vision.layouts.archive_files import CLASSES
from datamodules.vision.layouts.request import LabelledImages
from datamodules.vision.layouts.shards import INFO

Form = Literal["shards", "parquet"]

# 1,281,167 training images of ImageNet make 1,024 archives, as those of timm.
PER_ARCHIVE = 1252
# Small groups, for an image drawn at random costs the reading of its group.
_ROWS_PER_GROUP = 16
_PLAN = "conversion.json"
_SPLITS = {"train": "train", "val": "validation"}
_FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}


def convert_images(
    images: LabelledImages, to: Path, form: Form, per_archive: int = PER_ARCHIVE
) -> Iterator[Path | Progress]:
    """Writes both splits, and yields each finished file.

    Training images are shuffled once, always alike, so that a program which reads them as a stream
    meets all classes; validation images keep their order.

    Args:
        images: The data set.
        to: Folder to write to.
        form: `shards` or `parquet`.
        per_archive: Images of an archive.

    Raises:
        SuiteError: The folder holds something else.
    """
    plan = {"form": form, "images": _fingerprint(images), "per_archive": per_archive}
    _claim(to, plan)
    total, done = len(images.train) + len(images.val), 0
    splits = {}
    for split, source in (("train", images.train), ("val", images.val)):
        order = np.arange(len(source))
        if split == "train":
            order = np.random.default_rng(0).permutation(len(source))
        parts = [order[i : i + per_archive].tolist() for i in range(0, len(order), per_archive)]
        lengths = {}
        for number, part in enumerate(parts):
            path = to / _name(form, _SPLITS[split], number, len(parts))
            if not path.is_file():
                with atomic_path(path) as temporary:
                    if form == "shards":
                        _write_shard(temporary, source, part)
                    else:
                        _write_table(temporary, source, part, images.class_names)
            lengths[path.name] = len(part)
            done += len(part)
            yield path
            yield Progress(done, total, "images")
        splits[_SPLITS[split]] = {
            "name": _SPLITS[split],
            "num_samples": len(source),
            "filenames": list(lengths),
            "shard_lengths": list(lengths.values()),
        }
    write_text(to / CLASSES, "".join(f"{name}\n" for name in images.class_names))
    yield to / CLASSES
    if form == "shards":
        write_json(to / INFO, {"splits": splits})
        yield to / INFO
    (to / _PLAN).unlink()


def _claim(to: Path, plan: dict[str, object]) -> None:
    """Makes the folder this conversion's, or goes on with the one that was begun there."""
    path = to / _PLAN
    begun = json.loads(path.read_text("utf-8")) if path.is_file() else None
    if begun is None and to.is_dir() and any(to.iterdir()):
        raise SuiteError(
            expected="an empty folder to write to",
            found="a folder with other files",
            where=str(to),
            cure="name a new folder with --to",
        )
    if begun is not None and begun != plan:
        raise SuiteError(
            expected="the data and settings of the conversion that was begun here",
            found=f"{plan}, after {begun}",
            where=str(path),
            cure="name another folder with --to, or remove this one",
        )
    to.mkdir(parents=True, exist_ok=True)
    write_json(path, plan)


def _fingerprint(images: LabelledImages) -> str:
    return digest(
        f"{label} {source.name(index)}"
        for source in (images.train, images.val)
        for index, label in enumerate(source.labels.tolist())
    )


def _name(form: Form, split: str, number: int, count: int) -> str:
    if form == "shards":
        return f"{split}-{number:05d}.tar"
    return f"data/{split}-{number:05d}-of-{count:05d}.parquet"


def _write_shard(path: Path, source: ImageSource, indices: Sequence[int]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index in indices:
            data, suffix = _encoded(source, index)
            label = str(int(source.labels[index])).encode()
            key = _key(source, index)
            for name, content in ((f"{key}.cls", label), (f"{key}.{suffix}", data)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def _write_table(
    path: Path, source: ImageSource, indices: Sequence[int], class_names: tuple[str, ...]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"image": {"_type": "Image"}, "label": {"names": class_names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": kinds}})},
    )
    # Encoded images do not get smaller, and a dictionary of them would be as large as they are.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, len(indices), _ROWS_PER_GROUP):
            part = indices[start : start + _ROWS_PER_GROUP]
            rows = [
                {"bytes": _encoded(source, index)[0], "path": source.file_name(index)}
                for index in part
            ]
            labels = [int(source.labels[index]) for index in part]
            writer.write_table(pa.table({"image": rows, "label": labels}, schema))


def _encoded(source: ImageSource, index: int) -> tuple[bytes, str]:
    """The image as it is stored, or as PNG where it is stored as pixels, and its suffix."""
    data = source.read(index)
    if isinstance(data, Image.Image):
        file = io.BytesIO()
        data.save(file, "PNG")
        return file.getvalue(), "png"
    try:
        with Image.open(io.BytesIO(data)) as image:
            return data, _FORMATS[image.format or ""]
    except (OSError, KeyError) as error:
        raise SuiteError(
            expected=f"an image: {', '.join(_FORMATS)}",
            found=str(error),
            where=source.name(index),
            cure=f"{source.cure}; bimamba data validate finds all such images",
        ) from error


def _key(source: ImageSource, index: int) -> str:
    """Unique, and without dots, which end a key; the image's own name stays legible in it."""
    stem = os.path.splitext(source.file_name(index))[0].replace(".", "_")
    # A tar header holds a hundred bytes.
    return f"{index:08d}_{stem.encode('ascii', 'replace').decode().replace('?', '_')[:60]}"
