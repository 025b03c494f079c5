"""The least time of a scan."""

import pytest

from benchmarks.roofline import Roofline, measure_roofline

SHAPE = (2, 8, 10, 4)


def test_the_least_time_is_that_of_the_exponentials_or_the_streams() -> None:
    slow_exp = Roofline(bytes_per_second=1e12, exps_per_second=640.0).least_seconds(SHAPE, 4)
    assert slow_exp["exp"] == slow_exp["least"] == 1.0
    # 2 * 10 steps of 4 streams of 8 channels, and of B and C with 4 states each.
    slow_memory = Roofline(bytes_per_second=800.0, exps_per_second=1e12).least_seconds(SHAPE, 2)
    assert slow_memory["streams"] == slow_memory["least"] == pytest.approx(20 * 40 * 2 / 800)


def test_a_machine_has_limits() -> None:
    found = measure_roofline("cpu", quick=True)
    assert 1e6 < found.exps_per_second < 1e14
    assert 1e6 < found.bytes_per_second < 1e14
