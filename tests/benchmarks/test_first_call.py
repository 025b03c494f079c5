"""A fresh process with a cache of its own."""

from pathlib import Path

import pytest

from benchmarks import first_call
from benchmarks.settings import Settings


def test_a_step_is_taken_in_another_process_with_the_given_cache(tmp_path: Path) -> None:
    found = first_call._in_new_process(["scan", "cpu", "float32", "1"], str(tmp_path))
    assert "skipped" not in found, found
    assert set(found) == {"import_seconds", "first_seconds", "second_seconds"}


def test_a_process_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    found = first_call._in_new_process(["nothing", "cpu", "float32", "1"], str(tmp_path))
    assert found["skipped"].startswith("KeyError")


def test_both_processes_share_a_cache_that_is_empty_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contents: list[list[str]] = []

    def pretend(words: list[str], cache: str) -> dict[str, float]:
        contents.append([file.name for file in Path(cache).iterdir()])
        (Path(cache) / "kernel").touch()
        return {"first_seconds": 1.0}

    monkeypatch.setattr(first_call, "_in_new_process", pretend)
    first_call.measure_first_call("mixer", Settings())
    assert contents == [[], ["kernel"]]
