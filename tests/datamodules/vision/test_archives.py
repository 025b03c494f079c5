"""Tars, shards and tables: read in place, indexed once, damage named."""

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from blocks.errors import SuiteError
from blocks.files import cache_dir
from datamodules.vision.image_sources import Handles
from datamodules.vision.imagenet_layouts import read_layout
from datamodules.vision.layouts import shards, tars
from datamodules.vision.layouts.archive_files import expand, imagenet_wnids, split_files
from datamodules.vision.layouts.request import LabelledImages, Request
from datamodules.vision.miniatures import wnid
from tests.datamodules.vision.layouts_on_disk import CLASSES, expected, found, written


def read(root: Path, **options: object) -> LabelledImages:
    return read_layout(Request(root, **options))


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(SuiteError) as caught:
        read(root, **options)
    return str(caught.value)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def write(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def rewrite(path: Path, changed: Mapping[str, bytes | None]) -> None:
    """Writes a tar anew with other members; None leaves one out."""
    files = contents(path) | changed
    write(path, {name: data for name, data in files.items() if data is not None})


@pytest.mark.parametrize("layout", ["tars", "shards", "parquet"])
def test_the_index_is_built_once_and_again_when_an_archive_changes(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path / "cache"))
    root = written(layout, tmp_path / "data")
    before = found(read(root).train)
    indices = {path: path.stat().st_mtime_ns for path in (cache_dir() / "indices").iterdir()}
    assert len(indices) == 2
    assert found(read(root).train) == before
    assert {path: path.stat().st_mtime_ns for path in indices} == indices
    for path in indices:
        cut(path, 100)  # A damaged index is no index.
    assert found(read(root).train) == before
    written(layout, root, seed=3)
    assert found(read(root).train) == expected("train", seed=3)


@pytest.mark.parametrize("name", [tars.TRAIN, tars.VAL])
def test_an_archive_cut_short_is_named(name: str, tmp_path: Path) -> None:
    root = written("tars", tmp_path)
    cut(root / name, (root / name).stat().st_size // 2)
    message = refusal(root)
    assert f"where: {root / name}" in message
    assert "compare its size" in message


def test_a_member_that_reaches_beyond_its_inner_archive_is_refused(tmp_path: Path) -> None:
    root = written("tars", tmp_path)
    with tarfile.open(root / tars.TRAIN) as archive:
        first = archive.getmembers()[0]
    # The inner archive loses its end without the outer one being shorter.
    data = bytearray((root / tars.TRAIN).read_bytes())
    size = f"{512 * 4:011o}".encode()
    start = first.offset_data - 512
    data[start + 124 : start + 135] = size
    header = data[start : start + 148] + b" " * 8 + data[start + 156 : start + 512]
    data[start + 148 : start + 156] = f"{sum(header):06o}\0 ".encode()
    (root / tars.TRAIN).write_bytes(data)
    assert str(root / tars.TRAIN) in refusal(root)


def test_mac_files_in_an_archive_are_no_images(tmp_path: Path) -> None:
    root = written("tars", tmp_path)
    rewrite(root / tars.VAL, {"._ILSVRC2012_val_00000001.JPEG": b"mac"})
    assert found(read(root).val) == expected("val")


def test_tars_take_a_label_list_instead_of_the_kit(tmp_path: Path) -> None:
    root = written("tars", tmp_path)
    flat = written("flat", tmp_path / "flat")
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert "validation images without labels" in refusal(root)
    lines = (flat / "val.txt").read_text().splitlines()
    (root / "val.txt").write_text("\n".join(lines))
    assert found(read(root).val) == expected("val")
    (root / "val.txt").write_text("\n".join(lines[1:]))
    assert f"{len(lines) - 1} labels for {len(lines)} images" in refusal(root)


def test_a_damaged_kit_archive_is_named(tmp_path: Path) -> None:
    root = written("tars", tmp_path)
    cut(root / "ILSVRC2012_devkit_t12.tar.gz", 100)
    assert "development kit of ILSVRC 2012 as a .tar.gz" in refusal(root)


def test_a_train_archive_of_images_is_not_that_of_tasks_1_and_2(tmp_path: Path) -> None:
    root = written("tars", tmp_path)
    (root / tars.TRAIN).write_bytes((root / tars.VAL).read_bytes())
    assert "members ILSVRC2012_val_00000001.JPEG" in refusal(root)


def test_shards_are_chosen_by_brace_and_glob_patterns(tmp_path: Path) -> None:
    root = written("shards", tmp_path)
    part = read(root, train_files="imagenet1k-train-{0000..0001}.tar", val_files="*-validation-*")
    assert len(part.train) == 8
    assert found(part.val) == expected("val")
    assert "where: " + str(root / "imagenet1k-train-0003.tar") in refusal(
        root, train_files="imagenet1k-train-{0000..0003}.tar"
    )
    assert "nothing that matches other-*.tar" in refusal(root, val_files="other-*.tar")


def test_brace_patterns_count_with_leading_zeros() -> None:
    assert expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand("{0..1}/b-{3..4}") == ["0/b-3", "0/b-4", "1/b-3", "1/b-4"]
    assert expand("plain.tar") == ["plain.tar"]


def test_original_archives_are_no_shards(tmp_path: Path) -> None:
    assert split_files(written("tars", tmp_path), "val", ".tar") == []


def test_labels_in_json_keys_with_folders_and_upper_case_suffixes_are_read(tmp_path: Path) -> None:
    root = written("shards", tmp_path)
    for shard in root.glob("*-validation-*.tar"):
        files = contents(shard)
        kept = {name: data for name, data in files.items() if not name.endswith(".cls")}
        renamed = {f"v1.0/{name.replace('.jpg', '.JPG')}": data for name, data in kept.items()}
        write(shard, renamed | {"__meta__.json": b"{}"})
    assert found(read(root).val) == expected("val")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"ILSVRC2012_val_00000001.cls": b"cat"}, "the label b'cat'"),
        (
            {"ILSVRC2012_val_00000001.cls": None, "ILSVRC2012_val_00000001.json": None},
            "members jpg",
        ),
        ({"ILSVRC2012_val_00000001.jpg": None}, "members cls, json"),
        ({"ILSVRC2012_val_00000001.cls": b"9"}, "1 others, such as 9"),
    ],
)
def test_a_sample_without_image_or_label_is_named(
    changed: dict[str, bytes | None], message: str, tmp_path: Path
) -> None:
    root = written("shards", tmp_path)
    rewrite(root / "imagenet1k-validation-00.tar", changed)
    text = refusal(root)
    assert message in text
    assert "imagenet1k-validation-00.tar" in text
    assert "ILSVRC2012_val_00000001" in text


def test_a_shard_that_lost_its_last_sample_contradicts_the_info(tmp_path: Path) -> None:
    root = written("shards", tmp_path)
    shard = root / "imagenet1k-train-0001.tar"
    rewrite(shard, {f"{wnid(2)}_2.{suffix}": None for suffix in ("jpg", "cls", "json")})
    message = refusal(root)
    assert "4 samples, says _info.json" in message
    assert f"where: {shard}" in message
    (root / "_info.json").write_text('{"splits": 3}')
    assert "a file that cannot be used" in refusal(root)


def test_compressed_shards_are_refused_with_their_cure(tmp_path: Path) -> None:
    root = written("shards", tmp_path)
    shard = root / "imagenet1k-train-0000.tar"
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    message = refusal(root)
    assert "found: a compressed archive" in message
    assert "cure: decompress it first" in message


def test_classes_of_shards_are_numbers_without_a_list_and_wnids_for_imagenet(
    tmp_path: Path,
) -> None:
    root = written("shards", tmp_path)
    (root / "classes.txt").unlink()
    for train in (True, False):
        assert read(root, train=train).class_names == tuple(map(str, range(CLASSES)))
    index = shards.class_names(
        root, [root / "imagenet1k-train-0000.tar"], lambda: np.arange(1000, dtype=np.int64)
    )
    assert (index[0], index[999], len(index)) == ("n01440764", "n15075141", 1000)
    assert index == imagenet_wnids() == tuple(sorted(index))


def test_a_list_with_too_few_classes_is_noticed(tmp_path: Path) -> None:
    root = written("shards", tmp_path)
    (root / "classes.txt").write_text(f"{wnid(0)}\n")
    assert "labels from 0 to 0" in refusal(root)


def test_damaged_and_foreign_tables_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = written("parquet", tmp_path)
    path = root / "data" / "train-00001-of-00003.parquet"
    whole = path.read_bytes()
    cut(path, len(whole) // 2)
    assert f"where: {path}" in refusal(root)
    pq.write_table(pa.table({"text": ["a"]}), path)
    assert "(columns text)" in refusal(root)
    image = [{"bytes": None, "path": "somewhere.jpg"}]
    pq.write_table(pa.table({"image": image, "label": [0]}), path)
    train = read(root).train
    with pytest.raises(SuiteError, match="an empty entry"):
        train.read(4)


def test_tables_without_the_hubs_names_number_their_classes(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    root = written("parquet", tmp_path)
    for path in (root / "data").iterdir():
        table = pq.read_table(path).replace_schema_metadata({"huggingface": json.dumps({})})
        pq.write_table(table, path)
    images = read(root)
    assert images.class_names == tuple(map(str, range(CLASSES)))
    assert found(images.train) == expected("train")


def test_handles_of_more_files_than_a_process_may_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.vision.image_sources._MOST_HANDLES", 2)
    handles = Handles()
    for _ in range(2):
        for number in range(4):
            path = tmp_path / str(number)
            path.write_bytes(bytes([number] * 9))
            assert handles.read(str(path), 3, 2) == bytes([number] * 2)
    assert len(handles._open) == 2
    assert not pickle.loads(pickle.dumps(handles))._open
    with pytest.raises(SuiteError, match="became shorter"):
        handles.read(str(path), 3, 20)
