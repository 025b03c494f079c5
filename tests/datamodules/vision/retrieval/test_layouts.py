"""Readers of the six layouts, on miniatures with the traps of the true sets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.errors import SuiteError
from datamodules.vision.miniatures import write_bytes
from datamodules.vision.retrieval.detection import LAYOUTS, detect, read_listing
from datamodules.vision.retrieval.miniatures import (
    Snap,
    jpeg,
    write_duke,
    write_folders,
    write_market,
    write_msmt17,
    write_table,
    write_university,
)
from datamodules.vision.retrieval.records import Listing, Wanted, numbered, places, relabel

WRITERS: dict[str, Callable[[Path], None]] = {
    "market1501": write_market,
    "dukemtmc": write_duke,
    "msmt17": write_msmt17,
    "university1652": write_university,
    "folders": write_folders,
    "table": write_table,
}


def counts(listing: Listing) -> tuple[int, int, int]:
    return len(listing.of("train")), len(listing.of("query")), len(listing.of("gallery"))


def identities(listing: Listing, split: str) -> set[int]:
    return {record.identity for record in listing.of(split)}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_is_recognised_and_read_alike_when_named(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    assert detect(tmp_path) == layout
    listing = read_listing(Wanted(tmp_path))
    assert listing == read_listing(Wanted(tmp_path), layout)
    assert listing.layout == layout
    assert all(Path(record.path).is_file() for record in listing.records)
    assert not any(record.path.endswith(".db") for record in listing.records)
    assert list(listing.records) == sorted(
        listing.records,
        key=lambda r: (("train", "query", "gallery").index(r.split), r.view, r.path),
    )


def test_market_drops_junk_keeps_nobody_in_the_gallery_and_counts_cameras_from_0(
    tmp_path: Path,
) -> None:
    write_market(tmp_path)
    listing = read_listing(Wanted(tmp_path))
    assert counts(listing) == (4 * 2 * 3, 3 * 2, 3 * 2 * 2 + 2)
    assert identities(listing, "train") == {1, 3, 5, 7}
    assert identities(listing, "query") == {2, 4, 6}
    assert identities(listing, "gallery") == {0, 2, 4, 6}
    assert {record.camera for record in listing.records} == {0, 1}
    assert listing.distractor == 0
    assert listing.protocol == "cmc_camera"
    (junk,) = listing.remarks
    assert junk.found.startswith("1 images of a negative identity")


def test_the_examples_of_file_names_are_read_as_the_authors_meant(tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        write_bytes(tmp_path / folder / "0002_c6s1_000451_03.jpg", jpeg(Snap("train", 2, 0, 0)))
    write_bytes(tmp_path / "bounding_box_test" / "-1_c3s2_000001_00.jpg", b"")
    (record,) = read_listing(Wanted(tmp_path)).of("train")
    assert record[1:] == (2, 5, 0, "train")
    assert counts(read_listing(Wanted(tmp_path))) == (1, 1, 1)


def test_duke_is_told_from_market_by_its_names(tmp_path: Path) -> None:
    write_duke(tmp_path / "DukeMTMC-reID")
    listing = read_listing(Wanted(tmp_path))
    assert listing.layout == "dukemtmc"
    assert listing.home == tmp_path / "DukeMTMC-reID"
    assert counts(listing) == (24, 6, 12)


@pytest.mark.parametrize("folder", ["Market-1501-v15.09.15", "market1501"])
def test_market_is_found_under_the_names_of_its_archives(tmp_path: Path, folder: str) -> None:
    write_market(tmp_path / folder)
    assert read_listing(Wanted(tmp_path)).home == tmp_path / folder


def test_person_0_outside_the_gallery_is_left_out_with_a_warning(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_bytes(tmp_path / "query" / "0000_c1s1_000001_01.jpg", jpeg(Snap("query", 0, 0, 0)))
    listing = read_listing(Wanted(tmp_path))
    assert 0 not in identities(listing, "query")
    assert [remark.level for remark in listing.remarks] == ["note", "warning"]


def test_a_name_without_a_camera_is_refused(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_bytes(tmp_path / "query" / "0002.jpg", jpeg(Snap("query", 2, 0, 0)))
    with pytest.raises(SuiteError, match="(?s)0002_c1s1_000451_03.*a name that tells neither"):
        read_listing(Wanted(tmp_path))
    heard: list[SuiteError] = []
    listing = read_listing(Wanted(tmp_path, complain=heard.append))
    assert len(heard) == 1
    assert counts(listing) == (24, 6, 14)


@pytest.mark.parametrize("version", ["MSMT17_V1", "MSMT17_V2", "MSMT17"])
def test_msmt17_reads_identity_and_camera_from_list_and_name(tmp_path: Path, version: str) -> None:
    write_msmt17(tmp_path, version)
    listing = read_listing(Wanted(tmp_path))
    assert counts(listing) == (20, 6, 12)
    assert identities(listing, "train") == {0, 1, 2, 3}
    assert identities(listing, "query") == identities(listing, "gallery") == {0, 1, 2}
    assert {record.camera for record in listing.records} == {0, 1}
    for record in listing.records:
        name = Path(record.path).name
        assert (record.identity, record.camera + 1) == (int(name[:4]), int(name.split("_")[2]))
    assert not listing.shared_identities
    assert counts(read_listing(Wanted(tmp_path, join_val=True))) == (24, 6, 12)


def test_a_broken_line_of_a_list_is_named(tmp_path: Path) -> None:
    write_msmt17(tmp_path)
    with (tmp_path / "MSMT17_V1" / "list_query.txt").open("a") as file:
        file.write("0000/odd.jpg 0\n")
    with pytest.raises(SuiteError, match="(?s)odd.jpg.*list_query.txt, line 7"):
        read_listing(Wanted(tmp_path))


def test_two_versions_side_by_side_are_not_chosen_between(tmp_path: Path) -> None:
    write_msmt17(tmp_path, "MSMT17_V1")
    write_msmt17(tmp_path, "MSMT17_V2")
    with pytest.raises(SuiteError, match="found: MSMT17_V1, MSMT17_V2"):
        read_listing(Wanted(tmp_path))
    assert counts(read_listing(Wanted(tmp_path / "MSMT17_V2"))) == (20, 6, 12)


@pytest.mark.parametrize(
    "direction, expected",
    [("drone_to_satellite", (16, 9, 4)), ("satellite_to_drone", (16, 3, 12))],
)
def test_university_has_two_directions(
    tmp_path: Path, direction: str, expected: tuple[int, int, int]
) -> None:
    write_university(tmp_path)
    listing = read_listing(Wanted(tmp_path, direction=direction))
    assert counts(listing) == expected
    assert listing.views == ("satellite", "drone")
    assert listing.protocol == "trapezoid"
    assert identities(listing, "train") == {1, 3, 5, 7}
    assert identities(listing, "gallery") == {2, 4, 6, 840}
    asked, sought = direction.split("_to_")
    assert {listing.views[r.view] for r in listing.of("query")} == {asked}
    assert {listing.views[r.view] for r in listing.of("gallery")} == {sought}
    assert all(record.camera == record.view for record in listing.records)
    assert all(int(Path(record.path).parent.name) == record.identity for record in listing.records)


def test_empty_google_folders_are_a_note(tmp_path: Path) -> None:
    write_university(tmp_path)
    wanted = Wanted(tmp_path, "street_to_satellite", ("satellite", "street", "drone", "google"))
    listing = read_listing(wanted)
    assert listing.views == ("satellite", "street", "drone", "google")
    (remark,) = listing.remarks
    assert (remark.level, remark.found) == ("note", "2 building folders without an image")
    assert len([r for r in listing.of("train") if r.view == 3]) == 2


def test_folders_without_a_pattern_give_query_and_gallery_a_camera_each(tmp_path: Path) -> None:
    write_folders(tmp_path)
    listing = read_listing(Wanted(tmp_path))
    assert {(r.split, r.camera) for r in listing.records} == {
        ("train", 0), ("query", 0), ("gallery", 1),
    }  # fmt: skip
    (remark,) = listing.remarks
    assert remark.level == "warning" and remark.where.endswith("999")


def test_folders_read_the_camera_where_the_pattern_says(tmp_path: Path) -> None:
    write_folders(tmp_path, cameras=11)
    listing = read_listing(Wanted(tmp_path, camera_pattern=r"_c(\d+)"))
    assert {r.camera for r in listing.records} == set(range(11))
    for record in listing.records:
        assert record.path.endswith(f"_c{record.camera + 1}.jpg")


@pytest.mark.parametrize(
    "pattern, found", [("_c", "no group"), ("(", "missing"), ("x(.)", "42 of")]
)
def test_a_pattern_that_tells_no_camera_is_refused(
    tmp_path: Path, pattern: str, found: str
) -> None:
    write_folders(tmp_path)
    with pytest.raises(SuiteError, match="camera") as refusal:
        read_listing(Wanted(tmp_path, camera_pattern=pattern))
    assert found in str(refusal.value) or "42 others of 42" in str(refusal.value)


def test_named_identities_are_numbered_in_sorted_order_and_junk_stays_junk(tmp_path: Path) -> None:
    for split in ("train", "query", "gallery"):
        for name in ("zoe", "adam", "-1"):
            write_bytes(tmp_path / split / name / "1.jpg", jpeg(Snap("train", 1, 0, 0)))
    listing = read_listing(Wanted(tmp_path))
    assert counts(listing) == (2, 2, 2)
    assert {(Path(r.path).parent.name, r.identity) for r in listing.records} == {
        ("adam", 0), ("zoe", 1),
    }  # fmt: skip


def test_two_folders_of_the_same_number_are_noticed(tmp_path: Path) -> None:
    write_folders(tmp_path)
    write_bytes(tmp_path / "gallery" / "002" / "1.jpg", jpeg(Snap("gallery", 2, 1, 9)))
    remarks = read_listing(Wanted(tmp_path)).remarks
    assert any("002, 2, which are the same number" in remark.found for remark in remarks)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("camera", [True, False])
def test_a_table_lists_images_with_or_without_cameras(
    tmp_path: Path, suffix: str, camera: bool
) -> None:
    write_table(tmp_path, suffix, camera)
    listing = read_listing(Wanted(tmp_path))
    assert counts(listing) == (24, 6, 12)
    assert identities(listing, "gallery") == {2, 4, 6}
    cameras = {r.camera for r in listing.of("gallery")}
    assert cameras == ({0, 1} if camera else {1})
    assert listing == read_listing(Wanted(tmp_path / f"images{suffix}"))


def test_a_row_that_says_too_little_is_named(tmp_path: Path) -> None:
    write_table(tmp_path)
    text = (tmp_path / "images.csv").read_text().replace("query", "probe", 1)
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(SuiteError, match=r"(?s)split='probe'.*images.csv, line \d+"):
        read_listing(Wanted(tmp_path))


@pytest.mark.parametrize(
    "text, found",
    [
        ("path,id\nimages/000.jpg,1\n", "no split among path, id"),
        ("", "no path, id, split among no columns"),
        ("path,id,split,camera\na.jpg,1,train,1\nb.jpg,1,train,\n", "1 of 2 rows without one"),
    ],
)
def test_a_table_that_lacks_something_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SuiteError, match=found):
        read_listing(Wanted(tmp_path))


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(SuiteError, match="cannot be read"):
        read_listing(Wanted(tmp_path))


def test_a_view_column_gives_views(tmp_path: Path) -> None:
    rows = [f"{split}{n}.jpg,1,{split},{'drone' if n else 'air'}" for split in
            ("train", "query", "gallery") for n in range(2)]  # fmt: skip
    (tmp_path / "list.csv").write_text("path,id,split,view\n" + "\n".join(rows) + "\n")
    listing = read_listing(Wanted(tmp_path))
    assert listing.views == ("air", "drone")
    assert [record.view for record in listing.of("train")] == [0, 1]


def test_an_unknown_folder_is_answered_with_all_trees(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SuiteError) as refusal:
        detect(tmp_path)
    assert all(f" {name}:" in str(refusal.value) for name in LAYOUTS)
    assert "found: a folder with pictures" in str(refusal.value)


def test_two_data_sets_in_one_folder_are_not_chosen_between(tmp_path: Path) -> None:
    write_market(tmp_path / "market1501")
    write_duke(tmp_path / "dukemtmc-reid")
    with pytest.raises(SuiteError, match="market1501 and dukemtmc"):
        detect(tmp_path)
    assert read_listing(Wanted(tmp_path), "dukemtmc").layout == "dukemtmc"


@pytest.mark.parametrize("layout", WRITERS)
def test_a_named_layout_that_is_not_there_is_refused_with_its_tree(
    tmp_path: Path, layout: str
) -> None:
    with pytest.raises(SuiteError, match=f"the layout {layout}"):
        read_listing(Wanted(tmp_path), layout)


def test_every_negative_identity_is_junk(tmp_path: Path) -> None:
    write_market(tmp_path)
    write_bytes(tmp_path / "bounding_box_test" / "-2_c1s1_000009_01.jpg", b"")
    listing = read_listing(Wanted(tmp_path))
    assert counts(listing) == (24, 6, 14)
    assert listing.remarks[0].found.startswith("2 images of a negative identity")


def test_labels_follow_the_sorted_identities() -> None:
    assert relabel([7, 3, 3, 1501, 0]) == {0: 0, 3: 1, 7: 2, 1501: 3}


def test_numbers_and_names_of_identities() -> None:
    assert numbered(["0010", "9", "-1"]) == {"0010": 10, "9": 9, "-1": -1}
    assert numbered(["b", "10", "a"]) == {"10": 0, "a": 1, "b": 2, "-1": -1}
    assert numbered(["1" * 19])["1" * 19] == 0  # Too long for a number.
    assert places(["10", "9", "9"]) == {"9": 0, "10": 1}
