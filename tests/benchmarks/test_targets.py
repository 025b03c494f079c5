"""Promises beside measurements."""

from benchmarks.settings import Settings
from benchmarks.targets import Target, targets

CALLS = {"cold": {"first_seconds": 5.0}, "warm": {"skipped": "failed"}}
SCAN = {
    "shapes": {
        "2x384x197x16": {
            "forward_backward": {
                "ours": {"ratio": 1.0},
                "torch_loop": {"ratio": 30.0},
                "mambapy": {"ratio": 20.0},
                "associative_scan": {"skipped": "gone"},
                "associative_scan_compiled": {"ratio": 4.0},
            },
            "forward_over_exp_roofline": 2.0,
        }
    },
    "first_call": CALLS,
}


def by_figure(found: list[Target]) -> dict[str, Target]:
    return {target.figure: target for target in found}


def test_the_best_eager_peer_decides() -> None:
    found = by_figure(targets("scan", SCAN, Settings()))
    first = found["scan 2x384x197x16: speed, best eager peer = 1"]
    assert (first.measured, first.holds, first.note) == (20.0, True, "mambapy")
    assert found[f"{first.figure} (stretch)"].holds is False
    compiled = found["scan: speed, best compiled peer = 1, at its worst shape"]
    assert (compiled.measured, compiled.holds) == (4.0, False)
    assert found["scan forward: time / exp roofline, at its worst shape"].holds is True


def test_what_was_not_measured_neither_holds_nor_fails() -> None:
    found = by_figure(targets("scan", SCAN, Settings()))
    missing = found["scan 8x192x64x16: speed, best eager peer = 1"]
    assert (missing.measured, missing.holds, missing.note) == (None, None, "not measured")
    assert found["scan: first step, cold, seconds"].holds is True
    assert found["scan: first step, warm, seconds"].holds is None
    for other in (Settings(quick=True), Settings(device="cuda"), Settings(dtype="bfloat16")):
        assert all(target.holds is None for target in targets("scan", SCAN, other))


def test_figures_of_the_mixer_are_ours_divided_by_theirs() -> None:
    sweep = {"1024": {"ratios": [4.0, 40.0, 4.0]}, "16384": {"ratios": [72.0, 720.0, 72.0]}}
    results = {
        "table": {
            "forward_backward": {"frozen_mixer": {"ratio": 0.8}, "mambapy": {"ratio": 50.0}},
            "memory": {"bimamba": {"peak_bytes": 5}, "two_call": {"peak_bytes": 10}},
        },
        "sweep": {"mixers": {"bimamba": sweep}},
        "first_call": CALLS,
    }
    found = targets("mixer", results, Settings())
    measured = [target.measured for target in found]
    assert measured == [1.25, 50.0, 0.5, 72 / 4 / 16, 5.0, None]
    assert [target.holds for target in found] == [True, False, True, True, True, None]
    assert targets("model", {}, Settings()) == []
