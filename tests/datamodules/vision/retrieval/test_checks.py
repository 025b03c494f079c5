"""What a retrieval set is refused for, and what is said about it."""

import shutil
from pathlib import Path

import pytest

from blocks.errors import SuiteError
from datamodules.inspection import Inspectable, Progress, Remark
from datamodules.vision import RetrievalDataModule
from datamodules.vision.miniatures import write_bytes
from datamodules.vision.retrieval.embedded import market_name
from datamodules.vision.retrieval.layouts.market1501 import FOLDERS
from datamodules.vision.retrieval.miniatures import (
    Snap,
    jpeg,
    write_folders,
    write_market,
    write_msmt17,
    write_table,
    write_university,
)


def data(root: Path, **options: object) -> RetrievalDataModule:
    return RetrievalDataModule(str(root), num_workers=0, instances=2, **options)  # type: ignore[arg-type]


def remarks(
    root: Path, sample: int | None = None, level: str = "", **options: object
) -> list[Remark]:
    said = data(root, **options).validate(sample)
    return [r for r in said if isinstance(r, Remark) and r.level.startswith(level)]


def add(root: Path, split: str, identity: int, camera: int, number: int = 50) -> Path:
    snap = Snap(split, identity, camera, number)  # type: ignore[arg-type]
    path = root / FOLDERS[split] / market_name(identity, camera, number)  # type: ignore[index]
    write_bytes(path, jpeg(snap))
    return path


def test_sound_miniatures_are_not_complained_of(tmp_path: Path) -> None:
    write_market(tmp_path / "market")
    write_msmt17(tmp_path / "msmt")
    write_table(tmp_path / "table")
    write_university(tmp_path / "university")
    assert isinstance(data(tmp_path), Inspectable)
    for name in ("market", "msmt", "table", "university"):
        assert [r for r in remarks(tmp_path / name) if r.level != "note"] == []


def test_queries_that_only_their_own_camera_sees_are_refused_with_counts(tmp_path: Path) -> None:
    write_folders(tmp_path, cameras=1)
    broken = data(tmp_path, camera_pattern=r"_c(\d)")
    with pytest.raises(SuiteError) as refusal:
        broken.setup("validate")
    text = str(refusal.value)
    assert "none of 3: 0 of an identity that the gallery lacks, 3 of one it shows" in text
    assert "query: 3 images of 3 identities; by camera 0: 3; by identity 2: 1, 4: 1, 6: 1" in text
    assert "gallery: 6 images of 3 identities; by camera 0: 6; by identity 2: 2, 4: 2" in text
    assert "without camera information leave them out" in text
    errors = remarks(tmp_path, level="error", camera_pattern=r"_c(\d)")
    assert len(errors) == 1 and errors[0].expected.endswith("from another camera")
    data(tmp_path).setup("validate")  # The cure.


def test_queries_whose_identities_the_gallery_lacks_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path)
    for place, name in enumerate(("2", "4", "6")):
        (tmp_path / "gallery" / name).rename(tmp_path / "gallery" / str(100 + place))
    with pytest.raises(SuiteError, match="none of 6: 6 of an identity that the gallery lacks"):
        data(tmp_path).setup("fit")


def test_single_queries_without_a_match_are_a_warning(tmp_path: Path) -> None:
    write_market(tmp_path)
    add(tmp_path, "query", 77, 0)
    add(tmp_path, "query", 78, 1)
    add(tmp_path, "gallery", 78, 1, 51)
    data(tmp_path).setup("fit")
    absent, own = remarks(tmp_path, level="warning")
    assert absent.found == "1 queries of an identity that the gallery lacks: 77"
    assert "from their camera alone: 78" in own.found
    assert "passes over them" in absent.cure


def test_university_counts_missing_matches_as_zero(tmp_path: Path) -> None:
    write_university(tmp_path)
    shutil.rmtree(tmp_path / "test/gallery_satellite/0004")
    (warning,) = remarks(tmp_path, level="warning")
    assert warning.found.startswith("3 queries") and "counts them as 0" in warning.cure


@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_an_empty_split_is_refused_where_it_is_needed(tmp_path: Path, split: str) -> None:
    write_market(tmp_path)
    for path in (tmp_path / FOLDERS[split]).glob("*.jpg"):  # type: ignore[index]
        path.unlink()
    with pytest.raises(SuiteError, match=f"expected: {split} images"):
        data(tmp_path).setup("fit")
    if split == "train":
        only = data(tmp_path)
        only.setup("test")
        assert only.info.num_identities is None
        assert len(list(only.test_dataloader())) == 1


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    write_market(tmp_path)
    path = add(tmp_path, "train", 1, 0)
    path.write_bytes(path.read_bytes()[:200])
    (error,) = remarks(tmp_path, level="error")
    assert error.where == str(path)


def test_the_same_content_is_found_in_training_and_evaluation(tmp_path: Path) -> None:
    write_market(tmp_path)
    source = add(tmp_path, "train", 1, 0)
    write_bytes(tmp_path / "bounding_box_test" / market_name(2, 0, 60), source.read_bytes())
    write_bytes(tmp_path / "bounding_box_test" / market_name(4, 0, 61), jpeg(_TWIN))
    write_bytes(tmp_path / "bounding_box_test" / market_name(6, 0, 62), jpeg(_TWIN))
    found = {remark.found: remark.level for remark in remarks(tmp_path)}
    assert found["1 of the same content in training and evaluation"] == "error"
    assert found["1 of the same content under two identities"] == "error"
    assert remarks(tmp_path, sample=3, level="error") == []


_TWIN = Snap("gallery", 9, 1, 99)


def test_copies_of_a_query_in_the_gallery_are_a_warning(tmp_path: Path) -> None:
    write_market(tmp_path)
    query = next((tmp_path / "query").glob("0002_c1*.jpg"))
    shutil.copy(query, tmp_path / "bounding_box_test" / market_name(2, 0, 70))
    shutil.copy(query, tmp_path / "bounding_box_test" / market_name(2, 0, 71))
    (warning,) = remarks(tmp_path, level="warning")
    assert warning.found == "2 of the same content among queries and gallery"


def test_identities_of_training_in_evaluation_are_a_warning(tmp_path: Path) -> None:
    write_market(tmp_path)
    add(tmp_path, "gallery", 1, 1)
    (warning,) = remarks(tmp_path, level="warning")
    assert warning.found == "1 in both: 1"


def test_a_file_listed_in_two_splits_is_found(tmp_path: Path) -> None:
    write_table(tmp_path)
    with (tmp_path / "images.csv").open("a") as file:
        file.write("images/000.jpg,2,gallery,1\r\nimages/030.jpg,4,gallery,2\r\n")
    levels = {remark.expected: remark.level for remark in remarks(tmp_path, sample=0)}
    assert levels["evaluation images that were never trained on"] == "error"
    assert levels["each file once"] == "warning"


def test_identities_that_lack_a_view_are_a_warning(tmp_path: Path) -> None:
    write_university(tmp_path)
    shutil.rmtree(tmp_path / "train/satellite/0003")
    (warning,) = remarks(tmp_path, level="warning")
    assert warning.found == "1 of 4 identities lack a view: 3"


def test_one_camera_among_the_gallery_is_a_warning(tmp_path: Path) -> None:
    write_market(tmp_path)
    for path in (tmp_path / "bounding_box_test").glob("*_c2*"):
        path.unlink()
    found = [remark.found for remark in remarks(tmp_path, level="warning")]
    assert "camera 0 alone" in found


def test_few_images_of_an_identity_are_a_note(tmp_path: Path) -> None:
    write_market(tmp_path, images=2)
    add(tmp_path, "train", 99, 0)
    notes = [remark.found for remark in remarks(tmp_path, level="note")]
    assert "fewer of 1 identities of 5: 99" in notes


def test_a_missing_folder_is_a_remark_not_an_exception(tmp_path: Path) -> None:
    (error,) = remarks(tmp_path / "nowhere")
    assert error.level == "error" and error.found == "no such folder"


def test_names_without_identity_are_all_reported(tmp_path: Path) -> None:
    write_market(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        write_bytes(tmp_path / "query" / name, jpeg(_TWIN))
    assert len(remarks(tmp_path, level="error")) == 2


def test_progress_counts_what_is_read(tmp_path: Path) -> None:
    write_market(tmp_path)
    said = [p for p in data(tmp_path).validate(5) if isinstance(p, Progress)]
    assert said == [Progress(5, 5, "images")]


def test_the_description_counts_images_identities_and_cameras(tmp_path: Path) -> None:
    write_market(tmp_path)
    facts = data(tmp_path).describe()
    assert facts["layout"] == "market1501"
    assert facts["gallery identities"] == 3
    assert facts["gallery images of nobody"] == 2
    assert facts["train images of an identity"] == "6 to 6, median 6"
    assert facts["query cameras"] == 2
    write_university(tmp_path / "university")
    assert data(tmp_path / "university").describe()["direction"] == "drone to satellite"
