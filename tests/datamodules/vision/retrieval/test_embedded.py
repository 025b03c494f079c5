"""The embedded persons and buildings: what is on the disk, and that pixels do not solve them."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.vision.retrieval import embedded
from datamodules.vision.retrieval.checks import remarks_on, unmatched
from datamodules.vision.retrieval.detection import read_listing
from datamodules.vision.retrieval.records import Listing, Wanted


def persons() -> Listing:
    return read_listing(Wanted(embedded.generate_persons()))


def buildings(direction: str = "drone_to_satellite") -> Listing:
    return read_listing(Wanted(embedded.generate_buildings(), direction=direction))


def rank_1(listing: Listing, standardise: bool) -> float:
    """Share of queries whose nearest kept gallery image in pixel space is a match."""

    def pixels(split: str) -> tuple[torch.Tensor, np.ndarray]:
        records = listing.of(split)
        images = np.stack([np.asarray(Image.open(r.path), np.float32) for r in records])
        if standardise:
            images -= images.mean((1, 2), keepdims=True)
            images /= images.std((1, 2), keepdims=True)
        return torch.from_numpy(images).flatten(1), np.array([r[1:3] for r in records])

    (query, who), (gallery, whose) = pixels("query"), pixels("gallery")
    removed = (who[:, None] == whose[None]).all(axis=2)
    if listing.protocol == "trapezoid":
        removed[:] = False
    nearest = (torch.cdist(query, gallery) + 1e9 * torch.from_numpy(removed)).argmin(1)
    return float((whose[nearest.numpy(), 0] == who[:, 0]).mean())


def test_persons_lie_as_market_1501_does() -> None:
    listing = persons()
    assert listing.layout == "market1501"
    counts = [len(listing.of(split)) for split in ("train", "query", "gallery")]
    assert 1400 < sum(counts) < 1700
    seen: dict[int, set[int]] = defaultdict(set)
    for record in listing.records:
        seen[record.identity].add(record.camera)
    assert seen.pop(0) == {0, 1, 2, 3}
    assert len(seen) == 120 and all(len(cameras) >= 2 for cameras in seen.values())
    trained = {record.identity for record in listing.of("train")}
    tested = {record.identity for record in listing.of("query")}
    assert len(trained) == len(tested) == 60 and not trained & tested
    assert unmatched(listing) == ([], [])
    assert Image.open(listing.records[0].path).size == (32, 64)
    assert [remark.level for remark in remarks_on(listing, 4)] == ["note"]


def test_buildings_lie_as_university_1652_does() -> None:
    root = embedded.generate_buildings()
    assert {path.name for path in (root / "train").iterdir()} == {
        "satellite", "drone", "street", "google",
    }  # fmt: skip
    assert any(not list(folder.iterdir()) for folder in (root / "train/google").iterdir())
    there, back = buildings(), buildings("satellite_to_drone")
    sizes = [
        [len(side.of(split)) for split in ("train", "query", "gallery")] for side in (there, back)
    ]
    assert sizes == [[540, 320, 60], [540, 40, 480]]
    assert unmatched(there) == unmatched(back) == ([], [])
    assert list(remarks_on(there, 2)) == []


@pytest.mark.parametrize("standardise", [False, True])
def test_the_nearest_picture_is_mostly_of_somebody_else(standardise: bool) -> None:
    assert rank_1(persons(), standardise) < 0.4
    assert rank_1(buildings(), standardise) < 0.4
    assert rank_1(buildings("satellite_to_drone"), standardise) < 0.4


@pytest.mark.parametrize("write", [embedded._write_persons, embedded._write_buildings])
def test_generating_again_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    for name in ("_PERSONS", "_TRAIN_PERSONS", "_NOBODY", "_JUNK"):
        monkeypatch.setattr(embedded, name, 6)
    for name in ("_TRAIN_BUILDINGS", "_TEST_BUILDINGS", "_OTHER_BUILDINGS", "_DRONE_IMAGES"):
        monkeypatch.setattr(embedded, name, 2)
    contents = []
    for copy in ("one", "two"):
        (tmp_path / copy).mkdir()
        write(tmp_path / copy)  # type: ignore[operator]
        files = (tmp_path / copy).rglob("*.*")
        contents.append({f.relative_to(tmp_path / copy): f.read_bytes() for f in files})
    assert contents[0] == contents[1] and len(contents[0]) > 20
