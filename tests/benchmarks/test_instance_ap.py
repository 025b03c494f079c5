"""The evaluator's benchmark gives what it says; no time is asserted."""

from benchmarks.instance_ap import measure_instance_ap
from benchmarks.settings import Settings


def test_both_programs_agree_on_the_frames_that_are_timed() -> None:
    found = measure_instance_ap(Settings(quick=True), lambda _: None)
    assert found["difference"] < 1e-12
    assert found["ratio"] > 0 and found["seconds"] > 0 and found["all_frames"] == 20
