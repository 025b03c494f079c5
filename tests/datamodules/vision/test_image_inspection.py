"""Planted faults: validation finds each of them, and nothing in a sound copy."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from datamodules.inspection import Progress, Remark
from datamodules.vision import ImageNetDataModule
from datamodules.vision.miniatures import wnid
from tests.datamodules.vision.layouts_on_disk import WRITERS, written


def remarks(root: Path, sample: int | None = None, **options: object) -> list[Remark]:
    data = ImageNetDataModule(str(root), num_workers=0, **options)
    return [item for item in data.validate(sample) if isinstance(item, Remark)]


def photo(root: Path, split: str = "train", label: int = 0, number: int = 0) -> Path:
    return sorted((root / split / wnid(label)).glob("*.JPEG"))[number]


@pytest.mark.parametrize("layout", WRITERS)
def test_a_sound_copy_of_every_layout_has_no_remark(layout: str, tmp_path: Path) -> None:
    assert remarks(written(layout, tmp_path)) == []


def test_all_faults_are_found_in_one_call(tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    cut, text, cmyk, png = (photo(root, label=label) for label in range(4))
    cut.write_bytes(cut.read_bytes()[:-300])
    text.write_text("<html>404</html>")
    Image.new("CMYK", (20, 20)).save(cmyk)
    Image.new("RGB", (20, 20)).save(png, format="PNG")
    broken_val = photo(root, "val", 1)
    broken_val.write_bytes(b"")
    shutil.copy(photo(root, label=1, number=1), root / "val" / wnid(2) / "leak.JPEG")
    shutil.copy(photo(root, label=1, number=2), root / "train" / wnid(3) / "clash.JPEG")
    (root / "train" / wnid(0) / ".DS_Store").mkdir()
    shutil.rmtree(root / "val" / wnid(0))
    (root / "val" / wnid(0)).mkdir()
    found = remarks(root)
    errors = {remark.where for remark in found if remark.level == "error"}
    assert errors == {str(root), str(cut), str(text), str(broken_val)}
    assert all(r.expected and r.found and r.cure for r in found if r.level != "note")
    told = {remark.level + " " + remark.found for remark in found}
    assert f"error no image in {root / 'val' / wnid(0)}" in told
    assert f"warning none of {wnid(0)}" in told
    assert "note 1 of mode CMYK, converted to RGB" in told
    assert "note 1 PNG files named .JPEG, read by their content" in told
    leak = str(root / "val" / wnid(2) / "leak.JPEG")
    assert f"warning 1 that are training images too: {leak}" in told
    clash = str(root / "train" / wnid(3) / "clash.JPEG")
    assert f"warning 1 that stand in another class too: {clash}" in told
    assert len(found) == 9


def test_workers_find_the_same(tmp_path: Path) -> None:
    root = written("folder", tmp_path, classes=2, per_class=60, size=4)
    for number in (0, 70):
        path = sorted((root / "train").glob("*/*"))[number]
        path.write_bytes(path.read_bytes()[:100])
    alone = remarks(root)
    assert len(alone) == 2
    data = ImageNetDataModule(str(root), num_workers=2)
    assert [item for item in data.validate() if isinstance(item, Remark)] == alone


def test_a_sample_reads_so_many_and_tells_how_far_it_is(tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    data = ImageNetDataModule(str(root), num_workers=0)
    steps = [item for item in data.validate(5) if isinstance(item, Progress)]
    assert steps[-1] == Progress(10, 10, "images")
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    photo(root, number=1).write_bytes(b"")
    assert remarks(root, sample=1) == []  # The first image only.
    assert len(remarks(root)) == 1


def test_a_missing_file_and_a_cut_archive_are_remarks_not_tracebacks(tmp_path: Path) -> None:
    root = written("inat2018", tmp_path / "inat")
    gone = next(root.glob("train_val2018/*/*/*.jpg"))
    gone.unlink()
    (remark,) = remarks(root)
    assert (remark.found, remark.where) == ("no such file", str(gone))
    root = written("tars", tmp_path / "tars")
    path = root / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:9000])
    (remark,) = remarks(root)
    assert (remark.level, remark.where) == ("error", str(path))


def test_an_archive_that_shrinks_after_it_was_indexed_is_a_remark(tmp_path: Path) -> None:
    root = written("tars", tmp_path)
    steps = ImageNetDataModule(str(root), num_workers=0).validate()
    path = root / "ILSVRC2012_img_val.tar"
    first = next(steps)
    assert isinstance(first, Progress)
    path.write_bytes(path.read_bytes()[:1000])
    found = [item for item in steps if isinstance(item, Remark)]
    assert len(found) == 12
    assert all("became shorter" in remark.found for remark in found)


def test_a_root_that_is_not_there_is_one_remark(tmp_path: Path) -> None:
    (remark,) = remarks(tmp_path / "nowhere")
    assert (remark.level, remark.found) == ("error", "no such folder")


def test_a_wrong_number_of_imagenets_images_is_doubtful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = written("folder", tmp_path)
    names = tuple(wnid(label) for label in range(4))
    monkeypatch.setattr("datamodules.vision.image_inspection.imagenet_wnids", lambda: names)
    found = remarks(root)
    assert [(r.level, r.expected, r.found) for r in found] == [
        ("warning", "1,281,167 images, as in ILSVRC 2012", "12"),
        ("warning", "50,000 images, as in ILSVRC 2012", "12"),
    ]


def test_facts_are_those_of_the_copy(tmp_path: Path) -> None:
    root = written("shards", tmp_path)
    facts = ImageNetDataModule(str(root)).describe()
    assert (facts["layout"], facts["classes"]) == ("shards", 4)
    assert (facts["training images"], facts["validation images per class"]) == (12, "3 to 3")
    assert facts["median size"] == "32 x 32 pixels, 32 to 32 wide, of 12"
    assert ImageNetDataModule().describe()["training images"] == 1442
