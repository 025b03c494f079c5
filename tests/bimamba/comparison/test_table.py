"""Means and intervals against scipy, and which row is best."""

import math

import pytest
from scipy import stats

from bimamba.comparison.table import Cell, Column, Row, Table, aggregate


@pytest.mark.parametrize("values", [(1.0, 2.0), (98.87, 98.03, 97.5), (0.1, 0.1, 0.1, 0.4)])
def test_the_interval_is_that_of_students_t(values: tuple[float, ...]) -> None:
    cell = aggregate(values)
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values)
    )
    assert cell.mean is not None and cell.half_width is not None
    assert cell.mean - cell.half_width == pytest.approx(low)
    assert cell.mean + cell.half_width == pytest.approx(high)
    assert (cell.count, cell.values) == (len(values), values)


def test_one_run_has_no_interval() -> None:
    assert aggregate([3.5]) == Cell(3.5, None, 1, (3.5,))


def test_seeds_that_agree_have_an_interval_of_nothing() -> None:
    assert aggregate([2.0, 2.0, 2.0]).half_width == 0


def test_what_is_not_finite_is_left_out_and_not_counted() -> None:
    assert aggregate([1.0, math.nan, 3.0, math.inf]).count == 2
    assert aggregate([math.nan]) == Cell(None, None, 0, ())
    assert aggregate([]).mean is None


def row(mean: float | None) -> Row:
    return Row("r", {"m": Cell(mean)}, ("e/r",))


@pytest.mark.parametrize(
    ("mode", "means", "best"),
    [
        ("max", [1.0, 3.0, 2.0], {1}),
        ("min", [1.0, 3.0, 2.0], {0}),
        ("none", [1.0, 3.0, 2.0], set()),
        ("max", [3.0, None, 3.0, 1.0], {0, 2}),
        ("max", [2.0, 2.0], set()),
        ("max", [2.0], set()),
        ("max", [None, None], set()),
    ],
)
def test_the_best_is_best_by_the_mode_and_of_several(
    mode: str, means: list[float | None], best: set[int]
) -> None:
    column = Column("m", "m", mode=mode)  # type: ignore[arg-type]
    assert Table("", (column,), tuple(map(row, means))).best(column) == best


def test_text_and_nothing_are_never_the_best() -> None:
    column = Column("m", "m", mode="max")
    rows = (Row("a", {"m": "failed"}, ()), Row("b", {}, ()), Row("c", {"m": None}, ()), row(1.0))
    assert Table("", (column,), rows).best(column) == frozenset()
