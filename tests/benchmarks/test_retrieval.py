"""The retrieval benchmark on sizes that measure nothing."""

from pathlib import Path

import pytest

from benchmarks import retrieval
from benchmarks.document import measure, write
from benchmarks.settings import Settings
from benchmarks.tables import tables


def test_sizes_of_record_include_the_one_that_was_promised() -> None:
    assert (20_000, 200_000) in retrieval.SIZES


def test_a_quick_run_measures_both_protocols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process of its own takes seconds to import what this one has.
    monkeypatch.setattr(
        retrieval, "_in_a_process", lambda *given: retrieval._evaluate(*given, threads=1)
    )
    settings = Settings(quick=True, rounds=1, threads=1)
    document, promised = measure("retrieval", settings, lambda text: None)
    protocols = document["results"]["protocols"]
    assert protocols.keys() == {"cmc_camera", "trapezoid"}
    for rows in protocols.values():
        assert list(rows) == ["200", "500"]
        for row in rows.values():
            assert row["seconds"] > 0 and row["peak_bytes"] > row["feature_bytes"] > 0
            assert 0 < row["score"] <= 100
    assert [target.holds for target in promised] == [None, None]
    assert len(tables("retrieval", document["results"])) == 2
    paths = write("retrieval", settings, document, tmp_path)
    assert [path.name for path in paths] == [
        "retrieval_cpu_quick.json",
        "retrieval_cpu_quick.png",
    ]
    assert paths[1].stat().st_size > 10_000
