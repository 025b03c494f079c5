"""The motion benchmark on sizes that measure nothing."""

from pathlib import Path

from benchmarks.document import measure, write
from benchmarks.motion import measure_motion
from benchmarks.settings import Settings
from benchmarks.tables import tables


def test_a_quick_run_times_training_and_sampling_at_two_lengths(tmp_path: Path) -> None:
    settings = Settings(quick=True, rounds=1, threads=1)
    document, promised = measure("motion", settings, lambda text: None)
    results = document["results"]
    assert promised == [] and len(results["parameters"]) == 4
    for modes in results["lengths"].values():
        for rows in modes.values():
            assert rows["cmdm_bimamba"]["ratio"] == 1
            assert all(row["median_seconds"] > 0 for row in rows.values())
    assert [table.row_count for table in tables("motion", results)] == [4, 4]
    (_, picture) = write("motion", settings, document, tmp_path)
    assert picture.name == "motion_cpu_quick.png" and picture.stat().st_size > 10_000


def test_peers_can_be_left_out() -> None:
    settings = Settings(quick=True, rounds=1, peers=("adaln_bimamba",))
    results = measure_motion(settings, lambda text: None)
    assert list(results["parameters"]) == ["cmdm_bimamba", "adaln_bimamba"]
