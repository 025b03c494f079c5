"""A table of results: what stands in it, apart from how it is written down (`formats.py`).

A row is a variant with one run or several; each number is a mean over its runs with the half width
of its 95 % confidence interval, and every row names the runs behind it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["max", "min", "none"]


@dataclass(frozen=True)
class Column:
    """One measure.

    Args:
        name: What tools call it, such as `val/top1` or `params`.
        title: What readers see above it, without the unit.
        unit: Of the values in the cells. `bytes`, `s` and `count` are shown with a larger one
            (MiB, min, M) where that is easier to read; empty for a pure number.
        mode: Whether the largest or the smallest value is the best, or none is.
        digits: Digits after the point; None takes as many as the interval gives sense to.
    """

    name: str
    title: str
    unit: str = ""
    mode: Mode = "none"
    digits: int | None = None


@dataclass(frozen=True)
class Cell:
    """A number with its uncertainty.

    Args:
        mean: Mean over runs; None where no run has a finite value.
        half_width: Half of the 95 % confidence interval of the mean; None for a single run.
        count: Runs behind the mean.
        values: The value of each run.
    """

    mean: float | None
    half_width: float | None = None
    count: int = 1
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """One variant.

    Args:
        label: What it is called.
        cells: By the name of the column; text stands for itself, None and absence mean nothing.
        runs: Ids of the runs behind it, `experiment/run`.
    """

    label: str
    cells: Mapping[str, Cell | str | None]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Args:
        title: What is compared, in one line.
        columns: In the order of reading. The label comes before them, the runs behind them.
        rows: In the order of reading.
        notes: Sentences under the table.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def best(self, column: Column) -> frozenset[int]:
        """Places of the rows with the best mean; none where there is nothing to choose from.

        Args:
            column: One of the columns.
        """
        cells = {i: row.cells.get(column.name) for i, row in enumerate(self.rows)}
        means = {
            i: cell.mean
            for i, cell in cells.items()
            if isinstance(cell, Cell) and cell.mean is not None
        }
        if column.mode == "none" or len(set(means.values())) < 2:
            return frozenset()
        best = (max if column.mode == "max" else min)(means.values())
        return frozenset(i for i, mean in means.items() if mean == best)


def aggregate(values: Sequence[float]) -> Cell:
    """Mean with the half width of its 95 % confidence interval, by Student's t.

    Args:
        values: One per run. What is not finite is left out and not counted.

    Returns:
        The cell; without a half width below two values, without a mean below one.
    """
    finite = tuple(float(value) for value in values if math.isfinite(value))
    count = len(finite)
    if count < 2:
        return Cell(finite[0] if finite else None, None, count, finite)
    from scipy.special import stdtrit

    quantile = float(stdtrit(count - 1, 0.975))
    half_width = quantile * statistics.stdev(finite) / math.sqrt(count)
    return Cell(statistics.fmean(finite), half_width, count, finite)
