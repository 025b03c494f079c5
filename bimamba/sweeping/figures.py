"""Pictures of a study: values over time, importance of each key, and trials as lines."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimamba.sweeping.plan import SweepPlan
from bimamba.sweeping.space import Dimension, short_names, text_of
from bimamba.sweeping.study import Study
from blocks.files import atomic_path

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_DOT, _BEST, _GIVEN_UP = "#0072B2", "#D55E00", "#9a9a9a"


def draw_study(plan: SweepPlan, study: Study) -> list[Path]:
    """Draws `history.png`, `parallel.png` and, where it can be told, `importance.png`.

    Args:
        plan: What every trial starts from.
        study: At least one trial is complete.
    """
    complete = [t for t in study.trials if t.state.name == "COMPLETE" and t.value is not None]
    files = [_history(plan, study), _parallel(plan, complete)]
    if found := _importances(study, len(complete)):
        files.append(_importance(plan, found))
    return files


def _history(plan: SweepPlan, study: Study) -> Path:
    figure, panel = _figure(6.4, 3.6)
    complete = [t for t in study.trials if t.state.name == "COMPLETE" and t.value is not None]
    best = np.minimum.accumulate if plan.mode == "min" else np.maximum.accumulate
    numbers, values = [t.number for t in complete], [float(t.value or 0) for t in complete]
    given_up = [t for t in study.trials if t.state.name == "PRUNED" and t.intermediate_values]
    panel.plot(
        [t.number for t in given_up],
        [t.intermediate_values[max(t.intermediate_values)] for t in given_up],
        "x",
        color=_GIVEN_UP,
        label="given up",
    )
    panel.plot(numbers, values, "o", color=_DOT, label="complete")
    panel.step(numbers, best(values), where="post", color=_BEST, label="best so far")
    panel.set_xlabel("trial")
    panel.set_ylabel(plan.metric)
    panel.legend(frameon=False)
    return _save(figure, plan.directory / "history.png")


def _parallel(plan: SweepPlan, complete: "list[FrozenTrial]") -> Path:
    """One axis per key and one for the metric; a line per complete trial, the best in front."""
    space = plan.sweep.space
    figure, panel = _figure(1.8 * (len(space) + 1) + 2.0, 4.0)
    values = np.array([float(t.value or 0) for t in complete])
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    order = np.argsort(-values if plan.mode == "min" else values)
    for rank, index in enumerate(order):
        trial = complete[int(index)]
        heights = [_height(d, trial.params[key]) for key, d in space.items()]
        heights.append((float(values[index]) - low) / span)
        last = rank == len(order) - 1
        panel.plot(
            heights,
            color=_BEST if last else _DOT,
            alpha=1.0 if last else 0.2 + 0.5 * rank / len(order),
            linewidth=2.2 if last else 1.0,
        )
    for place, dimension in enumerate(space.values()):
        for height, text in _ticks(dimension):
            panel.text(place - 0.03, height, text, ha="right", va="center", fontsize=8)
        panel.axvline(place, color="#444", linewidth=0.8)
    for height, value in ((0.0, low), (1.0, high)):
        panel.text(len(space) + 0.03, height, f"{value:.4g}", va="center", fontsize=8)
    panel.axvline(len(space), color="#444", linewidth=0.8)
    panel.set_xticks(range(len(space) + 1), [*short_names(space), plan.metric])
    panel.set_yticks([])
    panel.set_xlim(-0.6, len(space) + 0.5)
    for side in ("left", "right", "top", "bottom"):
        panel.spines[side].set_visible(False)
    return _save(figure, plan.directory / "parallel.png")


def _importance(plan: SweepPlan, found: dict[str, float]) -> Path:
    names = dict(zip(plan.sweep.space, short_names(plan.sweep.space), strict=True))
    shown = sorted(found.items(), key=lambda item: item[1])
    figure, panel = _figure(6.0, 0.45 * len(shown) + 1.1)
    panel.barh([names[key] for key, _ in shown], [share for _, share in shown], color=_DOT)
    panel.set_xlabel(f"share of the variance of {plan.metric} (fANOVA)")
    panel.set_xlim(0, 1)
    return _save(figure, plan.directory / "importance.png")


def _importances(study: Study, complete: int) -> dict[str, float]:
    """Empty where too few trials tell nothing."""
    import optuna

    if complete < 4:
        return {}
    try:
        return optuna.importance.get_param_importances(
            study.optuna, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    except (ValueError, RuntimeError):  # All values equal, or no key common to all.
        return {}


def _height(dimension: Dimension, chosen: Any) -> float:
    if dimension.choices:
        labels = list(dimension.labels())
        return labels.index(chosen) / max(len(labels) - 1, 1)
    low, high, value = dimension.low, dimension.high, float(chosen)
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    if dimension.choices:
        return [(_height(dimension, label), text_of(label)) for label in dimension.labels()]
    return [(0.0, text_of(dimension.low)), (1.0, text_of(dimension.high))]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.add_subplot()
    panel.spines[["top", "right"]].set_visible(False)
    return figure, panel


def _save(figure: Any, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=140)
    return path
