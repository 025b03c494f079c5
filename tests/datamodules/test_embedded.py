"""Embedded data is written once, whole or not at all."""

from multiprocessing import get_context
from pathlib import Path

import pytest

from datamodules.embedded import generate_once


def write_two_files(folder: Path) -> None:
    (folder / "first").write_text("1")
    (folder / "second").write_text("2")


def generate_after(barrier) -> None:  # noqa: ANN001
    def write(folder: Path) -> None:
        # Both processes hold a finished draft before either renames it.
        write_two_files(folder)
        barrier.wait(timeout=30)

    generate_once("set_v1", write)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_second_call_writes_nothing() -> None:
    root = generate_once("set_v1", write_two_files)
    assert generate_once("set_v1", lambda _: pytest.fail("written again")) == root
    assert sorted(path.name for path in root.iterdir()) == ["first", "second"]


def test_an_interrupted_writer_leaves_nothing_that_counts(cache: Path) -> None:
    def die_halfway(folder: Path) -> None:
        (folder / "first").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_once("set_v1", die_halfway)
    assert list(cache.iterdir()) == []


def test_a_draft_that_a_killed_process_left_does_not_count(cache: Path) -> None:
    (cache / ".set_v1-killed" / "set_v1").mkdir(parents=True)
    root = generate_once("set_v1", write_two_files)
    assert (root / "second").read_text() == "2"


def test_two_processes_at_once_leave_one_whole_copy(cache: Path) -> None:
    fork = get_context("fork")
    barrier = fork.Barrier(2)
    writers = [fork.Process(target=generate_after, args=(barrier,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [path.name for path in cache.iterdir()] == ["set_v1"]
    assert sorted(path.name for path in (cache / "set_v1").iterdir()) == ["first", "second"]
