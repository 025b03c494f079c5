"""Each layout's miniature is read with the images and labels it was written with."""

import pickle
import re
import shutil
from pathlib import Path

import pytest

from blocks.errors import SuiteError
from datamodules.vision.imagenet_layouts import LAYOUTS, detect_layout, read_layout
from datamodules.vision.layouts.request import LabelledImages, Request
from datamodules.vision.miniatures import wnid
from tests.datamodules.vision.layouts_on_disk import CLASSES, WRITERS, expected, found, written

TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"
ONE_FILE_EACH = ("folder", "flat", "devkit")


@pytest.fixture(params=WRITERS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=ONE_FILE_EACH)
def file_layout(request: pytest.FixtureRequest) -> str:
    return request.param


def names(images: LabelledImages) -> list[list[tuple[str, int]]]:
    return [
        [(source.name(i), int(source.labels[i])) for i in range(len(source))]
        for source in (images.train, images.val)
    ]


def refusal(root: Path, layout: str = "auto", **options: object) -> str:
    with pytest.raises(SuiteError) as caught:
        read_layout(Request(root, **options), layout)
    text = str(caught.value)
    assert re.search(r"(?ms)^expected: .+^found: .+^where: .+^cure: .+", text)
    assert str(root) in text
    return text


def test_the_layout_is_detected(layout: str, tmp_path: Path) -> None:
    assert detect_layout(written(layout, tmp_path)) == layout


@pytest.mark.parametrize("asked", ["auto", "by name"])
def test_images_and_labels_are_those_that_were_written(
    layout: str, asked: str, tmp_path: Path
) -> None:
    root = written(layout, tmp_path)
    images = read_layout(Request(root), layout if asked == "by name" else "auto")
    assert images.class_names == tuple(wnid(label) for label in range(CLASSES))
    assert found(images.train) == expected("train")
    assert found(images.val) == expected("val")
    places = [name for split in names(images) for name, _ in split]
    assert len(set(places)) == len(places)
    assert all(place.startswith(str(root)) for place in places)


def test_a_source_reads_the_same_after_pickling(layout: str, tmp_path: Path) -> None:
    val = read_layout(Request(written(layout, tmp_path))).val
    val.read(0)  # Its handles are open.
    assert found(pickle.loads(pickle.dumps(val))) == found(val)


def test_training_images_are_listed_only_when_asked(layout: str, tmp_path: Path) -> None:
    root = written(layout, tmp_path)
    some, everything = (read_layout(Request(root, train=train)) for train in (False, True))
    assert some.class_names == everything.class_names
    assert names(some) == [[], names(everything)[1]]


def test_a_miniature_is_the_same_every_time(layout: str, tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        # MATLAB files and gzip archives hold the time.
        files = (p for p in root.rglob("*") if p.is_file() and p.suffix not in {".mat", ".gz"})
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    first = contents(written(layout, tmp_path / "first"))
    assert contents(written(layout, tmp_path / "second")) == first
    assert contents(written(layout, tmp_path / "third", seed=1)) != first


@pytest.mark.parametrize("layout", [*ONE_FILE_EACH, "parquet", "shards"])
def test_a_folder_named_validation_will_do(layout: str, tmp_path: Path) -> None:
    root = written(layout, tmp_path)
    if layout in {"parquet", "shards"}:
        for split in ("train", "validation"):
            (root / split).mkdir()
            for path in [*root.glob(f"*-{split}-*.tar"), *root.glob(f"data/{split}-*.parquet")]:
                path.rename(root / split / path.name.rpartition(f"{split}-")[2])
    else:
        (root / "val").rename(root / "validation")
    assert found(read_layout(Request(root)).val) == expected("val")


def test_hidden_folders_and_files_never_become_classes_or_images(
    file_layout: str, tmp_path: Path
) -> None:
    root = written(file_layout, tmp_path)
    before = names(read_layout(Request(root)))
    for folder in (root / "train", root / "val"):
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".DS_Store").mkdir()
    (root / "train" / wnid(0) / "._hidden.JPEG").touch()
    (root / "train" / wnid(0) / "Thumbs.db").touch()
    assert names(read_layout(Request(root))) == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_refused_with_the_expected_tree(
    split: str, file_layout: str, tmp_path: Path
) -> None:
    root = written(file_layout, tmp_path)
    (root / split).rename(root / "elsewhere")
    message = refusal(root, file_layout)
    assert f"no {split} folder" in message
    assert "elsewhere" in message
    assert "root/train/<" in message


def test_a_layout_asked_for_by_name_shows_its_tree_when_it_is_not_there(
    layout: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, layout)
    assert LAYOUTS[layout].tree.strip().splitlines()[0] in message
    assert "a folder with nothing" in message


def test_a_root_without_any_layout_shows_all_trees(tmp_path: Path) -> None:
    for root, text in [(tmp_path / "no", "no such folder"), (tmp_path, "a folder with nothing")]:
        message = refusal(root)
        assert f"found: {text}" in message
        assert all(f"\n {layout}:" in message for layout in LAYOUTS)


def test_a_flat_val_without_labels_is_refused(tmp_path: Path) -> None:
    root = written("flat", tmp_path)
    (root / "val.txt").unlink()
    assert "neither class folders nor a label file" in refusal(root)
    assert "without labels: none of val.txt" in refusal(root, "flat")
    assert "no ILSVRC2012_validation_ground_truth.txt" in refusal(root, "devkit")


def test_a_train_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / ".git").mkdir(parents=True)
    (tmp_path / "val").mkdir()
    assert "no class folders" in refusal(tmp_path, "folder")


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class_folder_is_refused_unless_classes_are_not_strict(
    split: str, tmp_path: Path
) -> None:
    root = written("folder", tmp_path)
    for path in (root / split / wnid(2)).iterdir():
        path.unlink()
    assert f"no image in {root / split / wnid(2)}" in refusal(root)
    images = read_layout(Request(root, strict_classes=False))
    assert len(images.class_names) == CLASSES
    emptied = images.train if split == "train" else images.val
    assert set(emptied.labels.tolist()) == {0, 1, 3}


def test_classes_that_differ_between_the_splits_are_named(tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    (root / "val" / wnid(1)).rename(root / "val" / "stranger")
    assert f"only in train {wnid(1)}; only in val stranger" in refusal(root)
    assert "only in val stranger" in refusal(root, strict_classes=False)
    shutil.rmtree(root / "val" / "stranger")
    val = read_layout(Request(root, strict_classes=False)).val
    assert set(val.labels.tolist()) == {0, 2, 3}


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


@pytest.mark.parametrize("below", ["ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_kaggles_tree_is_found_from_its_inner_folders(below: str, tmp_path: Path) -> None:
    root = written("kaggle", tmp_path)
    assert detect_layout(root / below) == "kaggle"
    assert found(read_layout(Request(root / below)).val) == expected("val")


def test_kaggles_validation_images_may_have_been_sorted_into_folders(tmp_path: Path) -> None:
    root = written("kaggle", tmp_path)
    val = root / "ILSVRC/Data/CLS-LOC/val"
    for line in (root / "LOC_val_solution.csv").read_text().splitlines()[1:]:
        name, _, boxes = line.partition(",")
        (val / boxes.split()[0]).mkdir(exist_ok=True)
        (val / f"{name}.JPEG").rename(val / boxes.split()[0] / f"{name}.JPEG")
    (root / "LOC_val_solution.csv").unlink()
    assert found(read_layout(Request(root)).val) == expected("val")


def test_kaggles_solution_is_needed_and_must_name_known_classes(tmp_path: Path) -> None:
    root = written("kaggle", tmp_path)
    solution = root / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace(wnid(1), "n77777777"))
    assert "whose class is no folder of train" in refusal(root)
    solution.unlink()
    assert "without labels: no LOC_val_solution.csv" in refusal(root)


def test_all_mistakes_are_told_to_a_listener_that_does_not_raise(tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    for split in ("train", "val"):
        shutil.rmtree(root / split / wnid(2))
        (root / split / wnid(2)).mkdir()
    (root / "val" / wnid(3)).rename(root / "val" / "stranger")
    told: list[SuiteError] = []
    images = read_layout(Request(root, complain=told.append))
    assert [str(e).partition("found: ")[2].splitlines()[0] for e in told] == [
        f"no image in {root / 'train' / wnid(2)}",
        f"only in train {wnid(3)}; only in val stranger",
        f"no image in {root / 'val' / wnid(2)}",
    ]
    assert set(images.val.labels.tolist()) == {0, 1}


def test_two_years_of_inaturalist_in_one_folder_are_not_guessed(tmp_path: Path) -> None:
    root = written("inat2018", tmp_path)
    for split in ("train", "val"):
        shutil.copy(root / f"{split}2018.json", root / f"{split}2019.json")
    assert "inat2018 and inat2019" in refusal(root)
    assert found(read_layout(Request(root), "inat2019").val) == expected("val")


def test_inaturalists_other_ranks_and_folders_without_kingdom(tmp_path: Path) -> None:
    root = written("inat2018", tmp_path)
    images = read_layout(Request(root, rank="supercategory"))
    assert images.class_names == ("Plantae",)
    assert "with the rank genus" in refusal(root, rank="genus")
    for folder in (root / "train_val2018/Plantae").iterdir():
        folder.rename(root / "train_val2018" / folder.name)
    (root / "train_val2018/Plantae").rmdir()
    assert found(read_layout(Request(root)).val) == expected("val")


def test_cifars_files_may_not_run_code(tmp_path: Path) -> None:
    root = written("cifar100", tmp_path)
    attack = b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR."
    (root / "cifar-100-python" / "test").write_bytes(attack)
    with pytest.raises(SuiteError, match="asks to call os.system"):
        read_layout(Request(root))
    assert not (tmp_path / "owned").exists()


def test_cifars_damaged_files_are_named(tmp_path: Path) -> None:
    root = written("cifar100", tmp_path)
    path = root / "cifar-100-python" / "test"
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert "that could not be read" in refusal(root)
    path.write_bytes((root / "cifar-100-python" / "meta").read_bytes())
    assert "the entry" in refusal(root)
    path.unlink()
    assert "no test" in refusal(root)
