"""Archives hold the same bytes and labels, and an interrupted conversion goes on."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blocks.errors import SuiteError
from datamodules.inspection import Progress
from datamodules.vision import ImageNetDataModule
from datamodules.vision.image_conversion import convert_images
from datamodules.vision.imagenet_layouts import detect_layout, read_layout
from datamodules.vision.layouts.request import LabelledImages, Request
from datamodules.vision.miniatures import wnid
from tests.datamodules.vision.layouts_on_disk import WRITERS, expected, found, written

FORMS = ("shards", "parquet")


def read(root: Path) -> LabelledImages:
    return read_layout(Request(root))


def files_in(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_becomes_archives_with_the_same_images_labels_and_classes(
    layout: str, form: Any, tmp_path: Path
) -> None:
    images, to = read(written(layout, tmp_path / "data")), tmp_path / "to"
    steps = list(convert_images(images, to, form, per_archive=5))
    assert Progress(24, 24, "images") in steps
    assert detect_layout(to) == form
    again = read(to)
    assert again.class_names == images.class_names
    assert found(again.train) == expected("train")
    assert found(again.val) == expected("val")
    if layout != "cifar100":  # Which stores pixels.
        originals = sorted(images.train.read(i) for i in range(len(images.train)))
        assert sorted(again.train.read(i) for i in range(len(again.train))) == originals


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_conversion_goes_on_with_the_next_archive(form: Any, tmp_path: Path) -> None:
    images = read(written("folder", tmp_path / "data"))
    list(convert_images(images, tmp_path / "whole", form, per_archive=5))
    to = tmp_path / "to"
    started: Iterator[Path | Progress] = convert_images(images, to, form, per_archive=5)
    first = next(started)
    assert isinstance(first, Path)
    started.close()
    kept = first.stat().st_mtime_ns
    list(convert_images(images, to, form, per_archive=5))
    assert first.stat().st_mtime_ns == kept
    assert files_in(to) == files_in(tmp_path / "whole")


def test_an_archive_is_whole_or_absent(tmp_path: Path) -> None:
    root, to = written("folder", tmp_path / "data"), tmp_path / "to"
    images = read(root)
    path = sorted((root / "train").glob("*/*"))[5]
    whole = path.read_bytes()
    path.write_bytes(b"no image")
    with pytest.raises(SuiteError, match="bimamba data validate finds all"):
        list(convert_images(images, to, "shards", per_archive=5))
    assert all(name.endswith((".tar", ".json")) and "/." not in name for name in files_in(to))
    assert not list(to.glob(".*"))
    path.write_bytes(whole)
    list(convert_images(images, to, "shards", per_archive=5))
    assert found(read(to).train) == expected("train")


def test_another_folder_is_asked_for_where_one_would_mix_two_data_sets(tmp_path: Path) -> None:
    images, to = read(written("folder", tmp_path / "data")), tmp_path / "to"
    next(convert_images(images, to, "shards", per_archive=5))
    with pytest.raises(SuiteError, match="settings of the conversion that was begun"):
        next(convert_images(images, to, "shards", per_archive=6))
    list(convert_images(images, to, "shards", per_archive=5))
    with pytest.raises(SuiteError, match="expected: an empty folder"):
        next(convert_images(images, to, "shards", per_archive=5))


def test_training_images_are_mixed_and_validation_images_in_order(tmp_path: Path) -> None:
    images = read(written("folder", tmp_path / "data", classes=3, per_class=12, size=32))
    list(convert_images(images, tmp_path / "to", "shards", per_archive=9))
    again = read(tmp_path / "to")
    assert len(set(again.train.labels[:9].tolist())) > 1
    assert again.val.labels.tolist() == images.val.labels.tolist()


def test_equal_names_in_two_classes_and_names_with_dots_survive(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split in ("train", "val"):
        for label in range(2):
            for name in ("1.v2.png", "日本 é.png"):
                path = root / split / wnid(label) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (3, 3), (9 * label, len(name), 0)).save(path)
    images = read(root)
    list(convert_images(images, tmp_path / "to", "shards"))
    again = read(tmp_path / "to")
    assert found(again.train) == found(images.train)
    assert all(again.train.name(i).endswith(".png") for i in range(4))


def test_shards_are_what_webdataset_reads(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    images, to = read(written("folder", tmp_path / "data")), tmp_path / "to"
    list(convert_images(images, to, "shards"))
    stream = webdataset.WebDataset(str(to / "validation-00000.tar"), shardshuffle=False)
    pairs = [(int(sample["cls"]), sample["jpg"]) for sample in stream]
    labels = images.val.labels.tolist()
    assert pairs == [(labels[i], images.val.read(i)) for i in range(len(images.val))]


def test_tables_are_what_datasets_reads(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    images, to = read(written("folder", tmp_path / "data")), tmp_path / "to"
    list(convert_images(images, to, "parquet"))
    table = pq.read_table(to / "data" / "validation-00000-of-00001.parquet")
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == images.val.labels.tolist()
    assert rows[0]["image"]["path"] == images.val.file_name(0)
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (32, 32)
    assert b"ClassLabel" in table.schema.metadata[b"huggingface"]


def test_the_datamodule_trains_on_what_it_converted(tmp_path: Path) -> None:
    data = ImageNetDataModule(str(written("devkit", tmp_path / "data")))
    list(data.convert(tmp_path / "to"))
    again = ImageNetDataModule(str(tmp_path / "to"), 16, batch_size=4, num_workers=0)
    again.prepare_data()
    again.setup("fit")
    assert next(iter(again.train_dataloader()))["image"].shape == (4, 3, 16, 16)
    assert again.info.class_names == tuple(wnid(label) for label in range(4))
