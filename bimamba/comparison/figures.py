"""Figures of a comparison: curves over the steps, and means with their intervals."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimamba.comparison.table import Cell, Table
from bimamba.run_files import Point, RunFiles
from blocks.errors import SuiteError
from blocks.files import atomic_path

# Okabe and Ito, without yellow: told apart by nearly every reader, and again by the line.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINES = ("-", "--", "-.", ":")
_PANEL, _LEGEND_ROW = (4.6, 3.2), 0.2  # inches
_LABEL = 44  # characters
_MOST_COLUMNS = 3


def draw_curves(
    groups: Mapping[str, Sequence[RunFiles]], metrics: Sequence[str], path: Path
) -> None:
    """One panel per metric; a line per group, with a band from its lowest to its highest run.

    The line is the mean over the steps that all runs of the group have reached; between two of its
    points a run is taken to be straight. Where a run is not finite, its group has a gap.

    Args:
        groups: Runs by the name of their variant.
        metrics: Columns of `metrics.csv`, such as `val/loss`. One that no run has is left out.
        path: The picture to write, by its ending: png, pdf or svg.

    Raises:
        SuiteError: No run has one of the metrics.
    """
    shown = [m for m in metrics if any(m in run.curves for runs in groups.values() for run in runs)]
    if not shown:
        raise SuiteError(
            expected="curves of " + ", ".join(metrics),
            found="none in metrics.csv of these runs",
            where=", ".join(run.id for runs in groups.values() for run in runs),
            cure="choose a metric that is a column of metrics.csv",
        )
    columns = min(math.ceil(math.sqrt(len(shown))), _MOST_COLUMNS)
    rows = -(-len(shown) // columns)
    labels = [
        textwrap.fill(f"{name} ({len(runs)} runs)" if len(runs) > 1 else name, _LABEL)
        for name, runs in groups.items()
    ]
    legend_rows = -(-len(labels) // columns) * max(label.count("\n") + 1 for label in labels)
    height = rows * _PANEL[1] + legend_rows * _LEGEND_ROW
    figure, axes = _figure(columns * _PANEL[0], height, rows, columns)
    for metric, panel in zip(shown, axes, strict=False):
        for i, runs in enumerate(groups.values()):
            _draw_group(panel, [run.curves[metric] for run in runs if metric in run.curves], i)
        units = (run.unit(metric) for runs in groups.values() for run in runs)
        unit = next((unit for unit in units if unit), "")
        panel.set_xlabel("optimiser step")
        panel.set_ylabel(f"{metric} ({unit})" if unit else metric)
    for panel in axes[len(shown) :]:
        panel.remove()
    figure.legend(
        [_handle(i) for i in range(len(labels))],
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    _save(figure, path)


def draw_bars(table: Table, metric: str, path: Path) -> None:
    """A line per row: the mean as a dot, its 95 % confidence interval as a bar, each run a ring.

    The axis does not start at zero: what is compared are places, not lengths.

    Args:
        table: What is compared.
        metric: Name of one of its columns.
        path: The picture to write, by its ending: png, pdf or svg.

    Raises:
        SuiteError: The table has no such column, or it holds no numbers.
    """
    column = next((c for c in table.columns if c.name == metric), None)
    cells = [(row.label, row.cells.get(metric)) for row in table.rows]
    drawn = [(label, c) for label, c in cells if isinstance(c, Cell) and c.mean is not None]
    if column is None or not drawn:
        raise SuiteError(
            expected="a column of numbers: " + ", ".join(c.name for c in table.columns),
            found=f"{metric}, without numbers" if column else metric,
            where=table.title,
            cure="choose another metric",
        )
    figure, (panel,) = _figure(7.2, 1.1 + 0.48 * len(drawn), 1, 1)
    for place, (_, cell) in enumerate(drawn):
        colour = _COLOURS[0]
        if cell.half_width is not None:
            panel.errorbar(
                cell.mean, place, xerr=cell.half_width, color=colour, capsize=4, linewidth=1.6
            )
        singles = cell.values if cell.count > 1 else ()
        panel.plot(singles, [place] * len(singles), "o", mfc="none", mec="#666666", ms=5, mew=1)
        panel.plot(cell.mean, place, "o", color=colour, ms=7)
    panel.set_yticks(
        range(len(drawn)),
        [textwrap.fill(f"{label} (n = {cell.count})", 40) for label, cell in drawn],
    )
    panel.set_ylim(len(drawn) - 0.5, -0.5)
    panel.set_xlabel(f"{column.title} ({column.unit})" if column.unit else column.title)
    panel.set_title("mean and 95 % confidence interval; rings are single runs", fontsize=9)
    panel.grid(axis="y", visible=False)
    _save(figure, path)


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Any, list[Any]]:
    """A figure of its own, apart from pyplot's state and from any window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in axes:
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _style(place: int) -> dict[str, Any]:
    turn = place // len(_COLOURS)
    return {"color": _COLOURS[place % len(_COLOURS)], "linestyle": _LINES[turn % len(_LINES)]}


def _handle(place: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linewidth=1.8, **_style(place))


def _draw_group(panel: Any, curves: Sequence[Sequence[Point]], place: int) -> None:
    if not curves:
        return
    steps, values = _resampled(curves)
    mean = values.mean(
        axis=0
    )  # Not a number where a run has none: a mean of fewer runs would jump.
    finite = mean[np.isfinite(mean)]
    dots = "o" if len(finite) < 25 else None
    panel.plot(steps, mean, linewidth=1.8, marker=dots, ms=3.5, **_style(place))
    if len(curves) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        panel.fill_between(steps, low, high, color=_style(place)["color"], alpha=0.18, linewidth=0)


def _resampled(
    curves: Sequence[Sequence[Point]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All steps of any curve, and each curve there; NaN before its first and after its last."""
    steps = np.array(sorted({point.step for curve in curves for point in curve}), dtype=float)
    rows = [
        np.interp(
            steps,
            [point.step for point in curve],
            [point.value for point in curve],
            left=math.nan,
            right=math.nan,
        )
        for curve in curves
    ]
    return steps, np.stack(rows)
