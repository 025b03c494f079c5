"""Embedded retrieval sets: procedural persons as Market-1501, buildings as University-1652."""

from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.embedded import generate_once
from datamodules.vision.retrieval import buildings, persons
from datamodules.vision.retrieval.layouts.market1501 import FOLDERS

_PERSONS, _TRAIN_PERSONS = 120, 60
_NOBODY, _JUNK = 80, 24

_TRAIN_BUILDINGS, _TEST_BUILDINGS, _OTHER_BUILDINGS = 60, 40, 20
_DRONE_IMAGES = 8


def generate_persons() -> Path:
    """Folder with some 1,500 pictures of 120 persons before four cameras, in Market-1501's layout.

    Pictures are 64x32 pixels. 60 persons are for training; of the other 60 one picture from each
    camera is a query. The gallery also holds detections of nobody (identity 0) and junk (-1).

    Returns:
        The data root.
    """
    return generate_once("retrieval_persons_v1", _write_persons)


def generate_buildings() -> Path:
    """Folder with some 1,650 pictures of 120 buildings in University-1652's layout.

    Pictures are 64x64 pixels: one from a satellite, eight from a drone, one from the street; some
    buildings have one more in `google`. 60 buildings are for training, 40 for queries and gallery,
    20 for the gallery alone. As in the true set, drone queries are in the drone gallery too.

    Returns:
        The data root.
    """
    return generate_once("retrieval_buildings_v1", _write_buildings)


def market_name(identity: int, camera: int, frame: int) -> str:
    """A file's name in Market-1501's form; `camera` counts from 0, detections of nobody are 0000.

    Args:
        identity: -1 for junk.
        camera: From 0.
        frame: Any number.
    """
    who = "-1" if identity == -1 else f"{identity:04d}"
    return f"{who}_c{camera + 1}s1_{frame:06d}_01.jpg"


def _write_persons(root: Path) -> None:
    for folder in FOLDERS.values():
        (root / folder).mkdir()
        # The true archive has such a file, which is no image.
        (root / folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    random = np.random.default_rng([1501, 0])
    trained = set(random.permutation(np.arange(1, _PERSONS + 1))[:_TRAIN_PERSONS].tolist())
    for identity in range(1, _PERSONS + 1):
        random = np.random.default_rng([1501, identity])
        person = persons.make_person(random)
        # Not everybody passes every camera, but each at least two.
        passed = np.sort(random.permutation(len(persons.CAMERAS))[: random.integers(2, 5)])
        for camera in passed.tolist():
            for number in range(int(random.integers(3, 6))):
                image = persons.photograph(person, persons.CAMERAS[camera], random)
                split = "gallery" if number else "query"
                folder = FOLDERS["train" if identity in trained else split]  # type: ignore[index]
                _save(image, root / folder / market_name(identity, camera, number * 25 + 1))
    _write_detections(root / FOLDERS["gallery"])


def _write_detections(gallery: Path) -> None:
    """Pictures without a person, and junk: a person mostly out of the box."""
    for number in range(_NOBODY + _JUNK):
        random = np.random.default_rng([1501, 0, number])
        camera = int(random.integers(len(persons.CAMERAS)))
        junk = number >= _NOBODY
        someone = persons.make_person(random) if junk else None
        image = persons.photograph(someone, persons.CAMERAS[camera], random)
        if junk:
            image = image.transform(
                image.size, Image.Transform.AFFINE, (0.5, 0, 14, 0, 0.5, 30),
                Image.Resampling.BILINEAR,
            )  # fmt: skip
        _save(image, gallery / market_name(-1 if junk else 0, camera, number))


def _write_buildings(root: Path) -> None:
    total = _TRAIN_BUILDINGS + _TEST_BUILDINGS + _OTHER_BUILDINGS
    random = np.random.default_rng([1652, 0])
    order = random.permutation(np.arange(1, total + 1)).tolist()
    for place, building in enumerate(order):
        random = np.random.default_rng([1652, building])
        site = buildings.make_site(random)
        name = f"{building:04d}"
        if place < _TRAIN_BUILDINGS:
            homes = {view: ("train/{}",) for view in ("satellite", "drone", "street", "google")}
        else:
            asked = ("test/query_{}",) if place < _TRAIN_BUILDINGS + _TEST_BUILDINGS else ()
            homes = {view: (*asked, "test/gallery_{}") for view in ("satellite", "drone", "street")}
        for view, folders in homes.items():
            pictures = _pictures(site, view, random)
            for folder in folders:
                home = root / folder.format(view) / name
                home.mkdir(parents=True)  # Empty where there are no pictures, as in the true set.
                for file, image in pictures.items():
                    _save(image, home / file.format(name))


def _pictures(
    site: buildings.Site, view: str, random: np.random.Generator
) -> dict[str, Image.Image]:
    """Pictures of a view by the true set's file names."""
    if view == "satellite":
        return {"{}.jpg": buildings.photograph(site, buildings.satellite(random), random)}
    if view == "drone":
        names = [f"image-{number:02d}.jpeg" for number in range(1, _DRONE_IMAGES + 1)]
        return {n: buildings.photograph(site, buildings.drone(random), random) for n in names}
    count = 1 if view == "street" else int(random.integers(2))
    names = [f"{number}.jpg" for number in range(1, count + 1)]
    return {n: buildings.photograph(site, buildings.street(random), random) for n in names}


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, quality=92)
