"""Each layout's miniature is read with the labels it was written with; mistakes are named."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blocks.errors import SuiteError
from datamodules.vision.image_reader import Item
from datamodules.vision.imagenet_layouts import detect_layout, read_layout
from datamodules.vision.miniatures import (
    wnid,
    write_devkit_layout,
    write_flat_layout,
    write_folder_layout,
)

CLASSES = 4
WRITERS: dict[str, Callable[..., None]] = {
    "folder": write_folder_layout,
    "flat": write_flat_layout,
    "devkit": write_devkit_layout,
}
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"


@pytest.fixture(params=WRITERS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


def written(layout: str, root: Path, **sizes: int) -> Path:
    WRITERS[layout](root, **({"classes": CLASSES, "per_class": 3, "size": 8} | sizes))
    return root


def colour_class(item: Item) -> int:
    """The class that the writer painted into the image: hue = class / classes."""
    red, green, blue = np.asarray(Image.open(item.path)).reshape(-1, 3).mean(axis=0) / 255
    hue = np.degrees(np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue)) % 360
    return round(hue / 360 * CLASSES) % CLASSES


def refusal(root: Path, layout: str = "auto") -> str:
    with pytest.raises(SuiteError) as caught:
        read_layout(root, layout)
    text = str(caught.value)
    assert re.search(r"(?ms)^expected: .+^found: .+^where: .+^cure: .+", text)
    assert str(root) in text
    return text


def test_the_layout_is_detected(layout: str, tmp_path: Path) -> None:
    assert detect_layout(written(layout, tmp_path)) == layout


@pytest.mark.parametrize("asked", ["auto", "by name"])
def test_every_label_is_the_class_painted_into_the_image(
    layout: str, asked: str, tmp_path: Path
) -> None:
    files = read_layout(written(layout, tmp_path), layout if asked == "by name" else "auto")
    assert files.class_names == tuple(wnid(label) for label in range(CLASSES))
    for items in (files.train, files.val):
        assert len({item.path for item in items}) == 3 * CLASSES
        assert [item.label for item in items] == [colour_class(item) for item in items]
        assert {item.label for item in items} == set(range(CLASSES))


def test_training_files_are_listed_only_when_asked(layout: str, tmp_path: Path) -> None:
    root = written(layout, tmp_path)
    files, all_files = read_layout(root, train=False), read_layout(root)
    assert files == all_files._replace(train=[])


def test_a_folder_named_validation_will_do(layout: str, tmp_path: Path) -> None:
    root = written(layout, tmp_path)
    labels = [item.label for item in read_layout(root).val]
    (root / "val").rename(root / "validation")
    assert [item.label for item in read_layout(root).val] == labels


def test_a_miniature_is_the_same_every_time(layout: str, tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.suffix in {".JPEG", ".txt"})
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    first = contents(written(layout, tmp_path / "first"))
    assert contents(written(layout, tmp_path / "second")) == first
    assert contents(written(layout, tmp_path / "third", seed=1)) != first


def test_hidden_folders_and_files_never_become_classes_or_images(
    layout: str, tmp_path: Path
) -> None:
    root = written(layout, tmp_path)
    before = read_layout(root)
    for folder in (root / "train", root / "val"):
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".DS_Store").touch()
    (root / "train" / wnid(0) / "._hidden.JPEG").touch()
    (root / "train" / wnid(0) / "Thumbs.db").touch()
    assert read_layout(root) == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_refused_with_the_expected_tree(
    split: str, layout: str, tmp_path: Path
) -> None:
    root = written(layout, tmp_path)
    (root / split).rename(root / "elsewhere")
    message = refusal(root, layout)
    assert f"no {split} folder" in message
    assert "elsewhere" in message
    assert "root/train/<" in message


def test_a_root_without_any_layout_shows_all_three_trees(tmp_path: Path) -> None:
    for root, found in [(tmp_path / "no", "no such folder"), (tmp_path, "a folder with nothing")]:
        message = refusal(root)
        assert f"found: {found}" in message
        assert all(f"\n {layout}:" in message for layout in WRITERS)


def test_a_flat_val_without_labels_is_refused(tmp_path: Path) -> None:
    root = written("flat", tmp_path)
    (root / "val.txt").unlink()
    assert "neither class folders nor a label file" in refusal(root)
    assert "none of val.txt" in refusal(root, "flat")
    assert "no ILSVRC2012_validation_ground_truth.txt" in refusal(root, "devkit")


def test_a_train_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / ".git").mkdir(parents=True)
    assert "no class folders" in refusal(tmp_path, "folder")


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class_folder_is_refused(split: str, tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    for path in (root / split / wnid(2)).iterdir():
        path.unlink()
    assert f"no image in {root / split / wnid(2)}" in refusal(root)


def test_classes_that_differ_between_the_splits_are_named(tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    (root / "val" / wnid(1)).rename(root / "val" / "stranger")
    assert f"only in train {wnid(1)}; only in val stranger" in refusal(root)


def test_a_flat_list_with_missing_or_unlisted_images_is_refused(tmp_path: Path) -> None:
    root = written("flat", tmp_path)
    first = root / "val" / "ILSVRC2012_val_00000001.JPEG"
    first.rename(root / "val" / "new.JPEG")
    message = refusal(root)
    assert "images without a label new.JPEG" in message
    assert f"labels without an image {first.name}" in message


def test_a_devkit_with_a_missing_image_is_refused(tmp_path: Path) -> None:
    root = written("devkit", tmp_path)
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
    assert "12 labels for 11 images" in refusal(root)


def test_a_devkit_without_meta_mat_is_refused(tmp_path: Path) -> None:
    root = written("devkit", tmp_path)
    (root / META).unlink()
    assert "no meta.mat" in refusal(root)
