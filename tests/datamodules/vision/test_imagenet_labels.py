"""Label lists and the development kit: indices, names, and lists that would mislabel in silence."""

from pathlib import Path

import pytest

from blocks.errors import SuiteError
from datamodules.vision.imagenet_labels import read_ground_truth, read_label_list, some
from datamodules.vision.miniatures import wnid, write_devkit_layout

NAMES = ("n01", "n02", "n10")


def listed(folder: Path, text: str, names: tuple[str, ...] = NAMES) -> dict[str, int]:
    (folder / "val.txt").write_text(text)
    return read_label_list(folder / "val.txt", names)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    write_devkit_layout(tmp_path, classes=3, per_class=2, size=4)
    return tmp_path / "ILSVRC2012_devkit_t12" / "data"


def ground_truth(kit: Path, names: tuple[str, ...] = (wnid(0), wnid(1), wnid(2))) -> list[int]:
    return read_ground_truth(
        kit / "ILSVRC2012_validation_ground_truth.txt", kit / "meta.mat", names
    )


@pytest.mark.parametrize(
    "text",
    ["a.JPEG 2\nb c.JPEG 0\n", "val/a.JPEG n10\n\nx/b c.JPEG\tn01"],
    ids=["indices", "names, folders, blanks"],
)
def test_indices_from_0_and_class_names_are_read(tmp_path: Path, text: str) -> None:
    assert listed(tmp_path, text) == {"a.JPEG": 2, "b c.JPEG": 0}


def test_class_names_that_look_like_indices_are_names(tmp_path: Path) -> None:
    # Sorted as text, "10" comes before "2".
    assert listed(tmp_path, "a 10\nb 2\nc 1", ("1", "10", "2")) == {"a": 1, "b": 2, "c": 0}


@pytest.mark.parametrize(
    "text, found, cure",
    [
        ("a 1\nb 3\nc 2\n", "count from 1 (1 to 3)", "subtract 1"),
        ("a 0\nb 3\n", "index 3 for 3 classes", "correct the list"),
        ("a n01\nb n77\n", "no class of train: n77", "correct the list"),
        ("a 0\nb -1\n", "no class of train: -1", "correct the list"),
        ("a 0\nb\n", "a line without a label", "correct the list"),
        ("", "an empty file", "correct the list"),
    ],
)
def test_a_list_that_would_mislabel_is_refused(
    tmp_path: Path, text: str, found: str, cure: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        listed(tmp_path, text)
    message = str(caught.value)
    assert found in message
    assert cure in message.partition("cure: ")[2]
    assert f"where: {tmp_path / 'val.txt'}" in message


def test_ids_go_through_meta_mat_and_not_through_the_sorted_names(kit: Path) -> None:
    ids = [int(line) for line in (kit / "ILSVRC2012_validation_ground_truth.txt").open()]
    # The miniature numbers its classes backwards, from 3.
    assert ground_truth(kit) == [3 - number for number in ids]
    assert ground_truth(kit) != [number - 1 for number in ids]


def test_inner_nodes_of_the_synset_tree_are_no_classes(kit: Path) -> None:
    with pytest.raises(SuiteError, match="only in one of them: n00000000"):
        ground_truth(kit, ("n00000000", wnid(0), wnid(1), wnid(2)))


def test_an_id_of_an_inner_node_is_refused(kit: Path) -> None:
    with (kit / "ILSVRC2012_validation_ground_truth.txt").open("a") as file:
        file.write("4\n")
    with pytest.raises(SuiteError, match="found: 4\n"):
        ground_truth(kit)


def test_a_damaged_meta_mat_is_named(kit: Path) -> None:
    (kit / "meta.mat").write_bytes(b"MATLAB")
    with pytest.raises(SuiteError, match="(?s)cannot be read.*meta.mat.*cure: unpack"):
        ground_truth(kit)


def test_long_lists_of_names_are_cut() -> None:
    assert [some([]), some(["a", "b"]), some(list("abcde"))] == [
        "nothing",
        "a, b",
        "a, b, c and 2 more",
    ]
