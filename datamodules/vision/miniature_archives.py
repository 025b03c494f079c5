"""Writers of tiny data sets in archives and tables: tars, WebDataset shards, parquet, and others.

Images, classes and arguments are those of `datamodules.vision.miniatures`.
"""

import io
import json
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.vision.miniatures import Photo, photos, wnid, write_bytes, write_kit

_PER_ARCHIVE = 4


def write_tars_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes the archives of ILSVRC 2012, with the development kit as `.tar.gz`.

    The arguments are those of `write_folder_layout`.
    """
    both = list(photos(classes, per_class, size, seed))
    val = [photo for photo in both if photo.split == "val"]
    inner = []
    for label in range(classes):
        mine = [(p.name, p.data) for p in both if p.split == "train" and p.label == label]
        inner.append((f"{wnid(label)}.tar", _tar(mine)))
    write_bytes(root / "ILSVRC2012_img_train.tar", _tar(inner))
    write_bytes(root / "ILSVRC2012_img_val.tar", _tar((p.name, p.data) for p in val))
    kit = root / "ILSVRC2012_devkit_t12"
    write_kit(kit / "data", val, classes)
    with tarfile.open(root / f"{kit.name}.tar.gz", "w:gz") as archive:
        archive.add(kit, kit.name)
    for path in (kit / "data").iterdir():
        path.unlink()
    (kit / "data").rmdir()
    kit.rmdir()


def write_shards_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `imagenet1k-{train-0000,validation-00}.tar` of WebDataset samples, and `_info.json`.

    The arguments are those of `write_folder_layout`.
    """
    splits = {}
    for split, name, digits in (("train", "train", 4), ("val", "validation", 2)):
        lengths = {}
        mine = [photo for photo in photos(classes, per_class, size, seed) if photo.split == split]
        for number, part in enumerate(_parts(mine)):
            files: list[tuple[str, bytes]] = []
            for photo in part:
                key = Path(photo.name).stem
                about = json.dumps({"label": photo.label, "filename": photo.name}).encode()
                label = str(photo.label).encode()
                files += [(f"{key}.cls", label), (f"{key}.jpg", photo.data), (f"{key}.json", about)]
            shard = f"imagenet1k-{name}-{number:0{digits}d}.tar"
            write_bytes(root / shard, _tar(files))
            lengths[shard] = len(part)
        splits[name] = {
            "name": name,
            "num_samples": len(mine),
            "filenames": list(lengths),
            "shard_lengths": list(lengths.values()),
        }
    (root / "_info.json").write_text(json.dumps({"splits": splits}))
    (root / "classes.txt").write_text("".join(f"{wnid(label)}\n" for label in range(classes)))


def write_parquet_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `data/{train,validation}-00000-of-000NN.parquet` with class names in the schema.

    The arguments are those of `write_folder_layout`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [wnid(label) for label in range(classes)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    hub = {"huggingface": json.dumps({"info": {"features": features}})}
    (root / "data").mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("val", "validation")):
        mine = [photo for photo in photos(classes, per_class, size, seed) if photo.split == split]
        parts = _parts(mine)
        for number, part in enumerate(parts):
            table = pa.table(
                {
                    "image": [{"bytes": photo.data, "path": photo.name} for photo in part],
                    "label": pa.array([photo.label for photo in part], pa.int64()),
                }
            )
            path = root / "data" / f"{name}-{number:05d}-of-{len(parts):05d}.parquet"
            pq.write_table(table.replace_schema_metadata(hub), path, row_group_size=3)


def write_inaturalist_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes iNaturalist 2018: `train_val2018/<kingdom>/<category>/*.jpg` and its JSON files.

    Categories are numbered backwards, so that their order is not that of the classes. The other
    arguments are those of `write_folder_layout`.
    """
    categories = [
        {"id": category, "name": wnid(classes - 1 - category), "supercategory": "Plantae"}
        for category in range(classes)
    ]
    (root / "train_val2018").mkdir(parents=True, exist_ok=True)
    (root / "categories.json").write_text(json.dumps(categories))
    number = 0
    for split in ("train", "val"):
        images, annotations = [], []
        for photo in photos(classes, per_class, size, seed):
            if photo.split != split:
                continue
            number += 1
            category = classes - 1 - photo.label
            name = f"train_val2018/Plantae/{category}/{Path(photo.name).stem}.jpg"
            write_bytes(root / name, photo.data)
            images.append({"id": number, "file_name": name})
            annotations.append({"id": number, "image_id": number, "category_id": category})
        document = {"images": images, "annotations": annotations}
        (root / f"{split}2018.json").write_text(json.dumps(document))


def write_cifar100_layout(
    root: Path, classes: int = 3, per_class: int = 4, size: int = 32, seed: int = 0
) -> None:
    """Writes `cifar-100-python/{train,test,meta}`, pickled as Python 2 did.

    The arguments are those of `write_folder_layout`; CIFAR's images have 32 pixels a side.
    """
    from PIL import Image

    if size != 32:
        raise ValueError(f"CIFAR-100 has images of 32 pixels, not {size}")
    for split, name in (("train", "train"), ("val", "test")):
        mine = [photo for photo in photos(classes, per_class, size, seed) if photo.split == split]
        planes = [
            np.asarray(Image.open(io.BytesIO(photo.data))).transpose(2, 0, 1).reshape(-1)
            for photo in mine
        ]
        table = {
            "data": np.stack(planes),
            "fine_labels": [photo.label for photo in mine],
            "coarse_labels": [0 for _ in mine],
            "filenames": [f"{Path(photo.name).stem}.png" for photo in mine],
        }
        write_bytes(root / "cifar-100-python" / name, _python_2_pickle(table))
    meta = {"fine_label_names": [wnid(label) for label in range(classes)]}
    write_bytes(root / "cifar-100-python" / "meta", _python_2_pickle(meta))


def _tar(files: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _parts(mine: list[Photo]) -> list[list[Photo]]:
    return [mine[start : start + _PER_ARCHIVE] for start in range(0, len(mine), _PER_ARCHIVE)]


# The pickler in Python, whose methods can be replaced; typeshed does not know them.
_PurePickler: Any = pickle._Pickler


class _Python2Pickler(_PurePickler):  # type: ignore[misc]
    """Writes strings and bytes alike as Python 2's `str`, which is what CIFAR's files hold."""

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch = {**_PurePickler.dispatch, str: save_string, bytes: save_string}


def _python_2_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
