"""Writers of tiny retrieval sets in the true layouts, with the traps that the true sets hold.

For tests and smoke runs. Every identity has a colour of its own, every camera a brightness, so a
network learns a miniature in a few steps.
"""

import colorsys
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.vision.miniatures import write_bytes
from datamodules.vision.retrieval.embedded import market_name
from datamodules.vision.retrieval.layouts.market1501 import FOLDERS
from datamodules.vision.retrieval.records import JUNK, Split

THUMBS = b"\xd0\xcf\x11\xe0 not an image"


class Snap(NamedTuple):
    """A picture of a miniature: cameras and numbers count from 0."""

    split: Split
    identity: int
    camera: int
    number: int


def snaps(train: int = 4, test: int = 3, cameras: int = 2, images: int = 3) -> Iterator[Snap]:
    """The pictures of a miniature. In evaluation the first of each camera is a query.

    Args:
        train: Identities to train on: 1, 3, 5, ...
        test: Identities to find again: 2, 4, 6, ...
        cameras: Cameras that see every identity.
        images: Pictures of an identity before a camera.
    """
    for place in range(train + test):
        split_of_first: Split = "train" if place < train else "query"
        split_of_others: Split = "train" if place < train else "gallery"
        identity = 2 * place + 1 if place < train else 2 * (place - train) + 2
        for camera in range(cameras):
            for number in range(images):
                split = split_of_others if number else split_of_first
                yield Snap(split, identity, camera, number)


def write_market(root: Path, train: int = 4, test: int = 3, images: int = 3) -> None:
    """Writes Market-1501's folders, with `Thumbs.db`, junk (-1) and detections of nobody (0).

    Args:
        root: Folder to write to.
        train: Identities to train on.
        test: Identities to find again.
        images: Pictures of an identity before each of two cameras.
    """
    nobody = [Snap("gallery", 0, 0, number) for number in range(2)]
    junk = [Snap("gallery", JUNK, 1, 7)]
    for snap in (*snaps(train, test, images=images), *nobody, *junk):
        name = market_name(snap.identity, snap.camera, snap.number)
        write_bytes(root / FOLDERS[snap.split] / name, jpeg(snap))
    for folder in FOLDERS.values():
        write_bytes(root / folder / "Thumbs.db", THUMBS)


def write_duke(root: Path, train: int = 4, test: int = 3, images: int = 3) -> None:
    """Writes DukeMTMC-reID's folders. The arguments are those of `write_market`."""
    for snap in snaps(train, test, images=images):
        name = f"{snap.identity:04d}_c{snap.camera + 1}_f{snap.number:07d}.jpg"
        write_bytes(root / FOLDERS[snap.split] / name, jpeg(snap))


def write_msmt17(root: Path, version: str = "MSMT17_V1", train: int = 4, test: int = 3) -> None:
    """Writes MSMT17 below `root`: identities count from 0 in `train` and again in `test`.

    Args:
        root: Folder to write to.
        version: Name of the folder; that of version 2 has other names inside.
        train: Identities to train on; the last picture of each is for validation.
        test: Identities to find again.
    """
    second = version.endswith("V2")
    folders = ("mask_train_v2", "mask_test_v2") if second else ("train", "test")
    lists: dict[str, list[str]] = {name: [] for name in ("train", "val", "query", "gallery")}
    for snap in snaps(train, test):
        training = snap.split == "train"
        identity = (snap.identity - 1) // 2
        number = snap.camera * 10 + snap.number
        file = f"{identity:04d}_{number:03d}_{snap.camera + 1:02d}_0303morning_0015_0.jpg"
        name = f"{identity:04d}/{file}"
        write_bytes(root / version / folders[not training] / name, jpeg(snap))
        last = training and snap.number == 2 and snap.camera == 1
        lists["val" if last else snap.split].append(f"{name} {identity}\n")
    for split, lines in lists.items():
        write_bytes(root / version / f"list_{split}.txt", "".join(lines).encode())


def write_university(root: Path, train: int = 4, test: int = 3, drone: int = 3) -> None:
    """Writes University-1652's folders; some buildings have no image in `google`.

    Args:
        root: Folder to write to.
        train: Buildings to train on: 1, 3, 5, ...
        test: Buildings to find again: 2, 4, 6, ...; the gallery holds building 840 too.
        drone: Drone images of a building.
    """
    for place in range(train):
        name = f"{2 * place + 1:04d}"
        _write_views(root / "train", "", 2 * place + 1, drone)
        (root / "train" / "google" / name).mkdir(parents=True)
        if place % 2:
            write_bytes(root / f"train/google/{name}/1.jpg", jpeg(Snap("train", place, 3, 0)))
    for place in range(test):
        _write_views(root / "test", "query_", 2 * place + 2, drone)
        _write_views(root / "test", "gallery_", 2 * place + 2, drone)
    _write_views(root / "test", "gallery_", 840, drone)
    write_bytes(root / "test/4K_drone/0002/image-01.jpeg", jpeg(Snap("gallery", 2, 1, 0)))


def write_folders(root: Path, train: int = 4, test: int = 3, cameras: int = 2) -> None:
    """Writes plain folders; names tell the camera (`_c3`), one training folder is empty.

    Args:
        root: Folder to write to.
        train: Identities to train on.
        test: Identities to find again.
        cameras: Cameras that see every identity.
    """
    for snap in snaps(train, test, cameras):
        name = f"{snap.number:06d}_c{snap.camera + 1}.jpg"
        write_bytes(root / snap.split / str(snap.identity) / name, jpeg(snap))
    (root / "train" / "999").mkdir()
    write_bytes(root / "gallery" / "2" / "Thumbs.db", THUMBS)


def write_table(root: Path, suffix: str = ".csv", camera: bool = True) -> None:
    """Writes images in one folder and a table of them.

    Args:
        root: Folder to write to.
        suffix: `.csv` or `.parquet`.
        camera: Whether the table tells cameras.
    """
    rows: list[dict[str, str | int]] = []
    for place, snap in enumerate(snaps()):
        path = f"images/{place:03d}.jpg"
        write_bytes(root / path, jpeg(snap))
        row: dict[str, str | int] = {"path": path, "id": snap.identity, "split": snap.split}
        rows.append(row | ({"camera": snap.camera + 1} if camera else {}))
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), root / "images.parquet")
        return
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def jpeg(snap: Snap, size: tuple[int, int] = (24, 12)) -> bytes:
    """A picture in its identity's colour and its camera's brightness, with noise.

    Args:
        snap: Which picture.
        size: (height, width) in pixels.
    """
    from PIL import Image

    hue = snap.identity * 0.6180339887 % 1  # Neighbouring numbers get distant hues.
    colour = np.array(colorsys.hsv_to_rgb(hue, 0.8, 0.9 - 0.2 * (snap.camera % 3))) * 255
    key = [len(snap.split), snap.identity + 1, snap.camera, snap.number]
    pixels = np.random.default_rng(key).normal(colour, 12, (*size, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def _write_views(folder: Path, prefix: str, building: int, drone: int) -> None:
    files = {"satellite": [f"{building:04d}.jpg"], "street": ["1.jpg"]}
    files["drone"] = [f"image-{number:02d}.jpeg" for number in range(1, drone + 1)]
    for view, (place, names) in zip(files, enumerate(files.values()), strict=True):
        for number, name in enumerate(names):
            path = folder / f"{prefix}{view}" / f"{building:04d}" / name
            write_bytes(path, jpeg(Snap("train", building, place, number), (16, 16)))
