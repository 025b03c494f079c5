"""Rounds, ratios, and contenders that fail or are slow."""

import time

import pytest

from benchmarks.settings import Settings, chosen, equal_threads
from benchmarks.sweep import measure_sweep
from benchmarks.timing import Row, compare, interleave

QUICK = Settings(quick=True, rounds=5)


def test_contenders_take_turns() -> None:
    order: list[str] = []
    contenders = {name: lambda name=name: order.append(name) for name in "ab"}
    times = interleave(contenders, QUICK)
    assert order[4:] == list("ab" * 5)
    assert [len(times[name]) for name in "ab"] == [5, 5]


def test_a_failing_contender_gives_its_reason_and_stops_nobody() -> None:
    def fail() -> None:
        raise RuntimeError("no such kernel\nand much more")

    rows = compare(interleave({"good": lambda: None, "bad": fail}, QUICK), "good")
    assert rows["bad"] == {"skipped": "RuntimeError: no such kernel"}
    assert rows["good"]["ratio"] == 1


def test_slow_contenders_sit_out_later_rounds_and_the_slowest_all() -> None:
    contenders = {"quick": lambda: None, "slow": lambda: time.sleep(0.02)}
    times = interleave(contenders, QUICK, patience=0.03)
    assert [len(times[name]) for name in contenders] == [5, 3]
    assert "more than" in str(interleave(contenders, QUICK, limit=0.01)["slow"])


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was ten times slower in the second round: for everybody.
    rows = compare({"ours": [1.0, 10.0, 1.0], "peer": [2.0, 20.0, 2.0]}, "ours")
    assert rows["peer"] == {
        "median_seconds": 2.0, "rounds": 3, "ratio": 2.0, "ratios": [2.0, 2.0, 2.0],
    }  # fmt: skip


def test_threads_are_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    with equal_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_subset_of_peers_has_files_of_its_own() -> None:
    settings = Settings(peers=("b",), dtype="bfloat16", quick=True)
    assert chosen(settings, ("a", "b")) == ["b"]
    assert settings.suffix == "cpu_bfloat16_quick_partial"
    assert Settings(device="cuda:1").suffix == "cuda"


class Quadratic:
    """Pretends to need 1 GB at 1,024 tokens and four times as much at each doubling."""

    def __init__(self, length: int) -> None:
        self.length = length

    def step(self) -> None:
        pass

    def memory(self) -> Row:
        return {"saved_bytes": 0, "peak_bytes": 10**9 * (self.length / 1024) ** 2}


def test_a_sweep_refuses_what_would_need_too_much_memory() -> None:
    sweep = measure_sweep({"attention": Quadratic}, Settings(rounds=1), lambda _: None)
    rows = sweep["mixers"]["attention"]
    assert rows["2048"]["seconds_per_token"] > 0
    assert rows["4096"] == {"skipped": "would need about 1.6e+10 bytes, the limit is 4e+09 bytes"}
    assert "skipped" in rows["16384"]


@pytest.mark.parametrize("seconds", [0.0, 1e-3])
def test_quick_settings_call_once_a_turn(seconds: float) -> None:
    calls: list[float] = []
    interleave({"a": lambda: calls.append(seconds)}, QUICK)
    assert len(calls) == 2 + 5
