"""Runs as rows of a table: which columns they have, and what their values are."""

import difflib
import re
from collections.abc import Sequence

from bimamba.comparison.agreement import check_comparable as check_comparable
from bimamba.comparison.table import Cell, Column, Mode, Row, aggregate
from bimamba.run_files import RunFiles
from blocks.errors import SuiteError

# Before the name of a metric: its value at the end of the run instead of at the best step.
LAST = "last:"
_COSTS = (
    Column("params", "parameters", "count"),
    Column("macs", "MACs", "count"),
    Column("samples_per_second", "samples/s"),
    Column("peak_memory", "peak memory", "bytes"),
    Column("seconds", "time", "s"),
)
# A summary names the direction of the monitored metric alone. Another metric with none of these
# words in its name gets no best value, rather than a wrong one.
_SMALLER = {"loss", "error", "mpjpe", "mpjve", "mae", "mse", "rmse", "nll", "fid"}
_LARGER = {"top", "accuracy", "acc", "iou", "miou", "ap", "pck", "auc", "precision", "recall"}


def common_columns(runs: Sequence[RunFiles], metrics: Sequence[str] | None) -> tuple[Column, ...]:
    """Columns of the metrics, then of the costs that at least one run knows.

    Args:
        runs: The runs of the table.
        metrics: Names such as `val/top1`, each in its value at the best step and at the end. None
            takes the monitored metric so, and after it every other metric at the best step.

    Raises:
        SuiteError: No run logs one of the metrics.
    """
    known = _logged(runs)
    trained = any(run.metrics("best") for run in runs)
    monitors = [m for m in dict.fromkeys(run.monitor for run in runs) if m in known]
    for name in metrics or ():
        if name not in known:
            raise _unknown(name, sorted(known))
    twice = list(dict.fromkeys(metrics or monitors))
    names = [
        name for metric in twice for name in ((metric, LAST + metric) if trained else (metric,))
    ]
    if metrics is None:
        which = "best" if trained else "last"
        found = {n for run in runs for n in run.metrics(which) if _is_result(n)}
        names += sorted(found - {*twice}, key=lambda name: (name.startswith("train/"), name))
    costs = (c for c in _COSTS if any(run.number(c.name) is not None for run in runs))
    return (*(_metric_column(name, runs) for name in names), *costs)


def group_row(label: str, runs: Sequence[RunFiles], columns: Sequence[Column]) -> Row:
    """The runs of one variant as a row of means with confidence intervals.

    Args:
        label: What the variant is called.
        runs: Its runs, mostly those of several seeds.
        columns: What to show; a run without a value is left out of that mean, and of its count.
    """
    cells: dict[str, Cell | str | None] = {}
    for column in columns:
        values = [value(run, column.name) for run in runs]
        cells[column.name] = aggregate([number for number in values if number is not None])
    return Row(label, cells, tuple(run.id for run in runs))


def value(run: RunFiles, name: str) -> float | None:
    """What a run has in a column; None where it has nothing, or nothing finite.

    Args:
        run: The run.
        name: Of a column. A metric stands for its value at the best step, or for that of the
            evaluation where nothing was trained; `last:METRIC` for that at the end.
    """
    if name.startswith(LAST):
        return run.metrics("last").get(name.removeprefix(LAST))
    if any(column.name == name for column in _COSTS):
        return run.number(name)
    return (run.metrics("best") or run.metrics("last")).get(name)


def _logged(runs: Sequence[RunFiles]) -> set[str]:
    return {name for run in runs for which in ("best", "last") for name in run.metrics(which)}


def _is_result(name: str) -> bool:
    """Neither a learning rate nor the value of a single batch."""
    return not name.startswith("lr/") and not name.endswith("_step")


def _metric_column(name: str, runs: Sequence[RunFiles]) -> Column:
    metric = name.removeprefix(LAST)
    title = f"{metric}, last" if metric != name else metric
    units = (run.unit(metric) for run in runs)
    return Column(name, title, next((unit for unit in units if unit), ""), _mode(metric, runs))


def _mode(metric: str, runs: Sequence[RunFiles]) -> Mode:
    monitored = (run.summary.get("mode") for run in runs if run.monitor == metric)
    mode = next((mode for mode in monitored if mode in ("max", "min")), None)
    if mode is not None:
        return "max" if mode == "max" else "min"
    words = set(re.findall(r"[a-z]+", metric.rpartition("/")[2].lower()))
    return "min" if words & _SMALLER else "max" if words & _LARGER else "none"


def _unknown(name: str, known: Sequence[str]) -> SuiteError:
    near = difflib.get_close_matches(name, known, 3, 0.4)
    shown = [n for n in known if _is_result(n)]
    return SuiteError(
        expected=f"a metric that one of the runs logs: {', '.join(shown) or 'there is none'}",
        found=name,
        where="--metric",
        cure=f"did you mean {' or '.join(near)}?" if near else "choose one of these",
    )
