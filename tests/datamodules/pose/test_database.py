"""The memory-mapped database: written whole, opened without reading, cheap to send to a worker."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from blocks.errors import SuiteError
from datamodules.pose.database import (
    PoseSplit,
    Video,
    cached_database,
    read_split,
    video_runs,
    write_database,
)


def split(frames: int = 5) -> PoseSplit:
    random = np.random.RandomState(0)
    return PoseSplit(
        videos=(Video("v", 0, frames, 1000, 1002, group="Walking", camera="c"),),
        keypoints=random.rand(frames, 17, 2).astype(np.float32),
        pose=random.rand(frames, 17, 3).astype(np.float32),
        factor=random.rand(frames),
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files = list(write_database(tmp_path, {"train": split(), "test": split(3)}))
    assert [file.name for file in files][-1] == "database.json"
    found = read_split(tmp_path, "train")
    assert found.videos == split().videos and found.confidence is None
    np.testing.assert_array_equal(found.keypoints, split().keypoints)
    np.testing.assert_array_equal(found.factor, split().factor)
    assert len(read_split(tmp_path, "test")) == 3


def test_a_worker_gets_the_folder_and_not_the_frames(tmp_path: Path) -> None:
    list(write_database(tmp_path, {"train": split(5000)}))
    sent = pickle.dumps(read_split(tmp_path, "train"))
    assert len(sent) < 2000
    there = pickle.loads(sent)
    assert isinstance(there.keypoints, np.memmap)
    np.testing.assert_array_equal(there.pose, split(5000).pose)
    in_memory = pickle.loads(pickle.dumps(split()))
    np.testing.assert_array_equal(in_memory.pose, split().pose)


@pytest.mark.parametrize("harm", ["missing", "short", "index"])
def test_a_damaged_database_is_told(tmp_path: Path, harm: str) -> None:
    list(write_database(tmp_path, {"train": split()}))
    if harm == "missing":
        (tmp_path / "train" / "pose.npy").unlink()
    elif harm == "short":
        np.save(tmp_path / "train" / "pose.npy", split(4).pose)
    else:
        (tmp_path / "database.json").write_text("{")
    with pytest.raises(SuiteError, match="delete the folder"):
        read_split(tmp_path, "train")


def test_the_cache_is_asked_once_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path / "cache"))
    source, calls = tmp_path / "data.pkl", []
    source.write_text("a")

    def read() -> dict[str, PoseSplit]:
        calls.append(1)
        return {"train": split()}

    first = cached_database((source,), "h36m", read)
    assert cached_database((source,), "h36m", read) == first and len(calls) == 1
    source.write_text("ab")
    assert cached_database((source,), "h36m", read) != first and len(calls) == 2
    with pytest.raises(SuiteError, match="no such file"):
        cached_database((tmp_path / "none.pkl",), "h36m", read)


def test_runs_of_equal_names() -> None:
    assert video_runs(np.array(["a", "a", "b", "a"])) == [(0, 2), (2, 3), (3, 4)]
    assert video_runs(np.array([], dtype=str)) == []
