"""Figures are drawn from the points of the runs; what is drawn is read back from the axes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bimamba.comparison import figures
from bimamba.comparison.figures import draw_bars, draw_curves
from bimamba.comparison.table import Column, Row, Table, aggregate
from bimamba.run_files import RunFiles, read_run
from blocks.errors import SuiteError
from tests.run_directories import write_run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures as they are saved."""
    kept: list[Any] = []
    save = figures._save

    def keep(figure: Any, path: Path) -> None:
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    return kept


def seeds(root: Path, *curves: tuple[float, ...]) -> list[RunFiles]:
    return [
        read_run(write_run(root, f"e/{i}", seed=i, curve=curve)) for i, curve in enumerate(curves)
    ]


def test_a_group_is_its_mean_with_a_band_from_lowest_to_highest(
    tmp_path: Path, drawn: list[Any]
) -> None:
    runs = seeds(tmp_path, (10.0, 20.0, 30.0), (20.0, 40.0, 60.0))
    draw_curves({"both": runs}, ["val/top1"], tmp_path / "c.png")
    (panel,) = drawn[0].axes
    (line,) = panel.lines
    assert line.get_xdata().tolist() == [9, 19, 29]
    assert line.get_ydata().tolist() == [15, 30, 45]
    band = panel.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (10, 60)
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("optimiser step", "val/top1 (%)")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["both (2 runs)"]
    assert np.asarray(Image.open(tmp_path / "c.png")).std() > 5


def test_the_mean_ends_where_a_run_does_and_has_a_gap_where_it_diverged(
    tmp_path: Path, drawn: list[Any]
) -> None:
    runs = seeds(tmp_path, (1.0, 2.0, 3.0, math.nan), (3.0, 4.0))
    draw_curves({"g": runs, "alone": runs[:1]}, ["val/top1"], tmp_path / "c.png")
    together, alone = drawn[0].axes[0].lines
    assert together.get_ydata()[:2].tolist() == [2, 3]
    assert np.isnan(together.get_ydata()[2:]).all()
    assert alone.get_ydata()[:3].tolist() == [1, 2, 3] and np.isnan(alone.get_ydata()[3])


def test_groups_are_told_apart_beyond_the_colours(tmp_path: Path, drawn: list[Any]) -> None:
    (run,) = seeds(tmp_path, (1.0, 2.0))
    draw_curves({str(i): [run] for i in range(20)}, ["val/top1"], tmp_path / "c.png")
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}
    assert len(looks) == 20


def test_metrics_without_points_are_left_out_and_none_at_all_is_refused(
    tmp_path: Path, drawn: list[Any]
) -> None:
    runs = seeds(tmp_path, (1.0, 2.0))
    draw_curves({"g": runs}, ["val/nothing", "val/top1"], tmp_path / "c.png")
    assert len(drawn[0].axes) == 1
    with pytest.raises(SuiteError, match="val/nothing"):
        draw_curves({"g": runs}, ["val/nothing"], tmp_path / "d.png")
    assert not (tmp_path / "d.png").exists()


def bars(*groups: tuple[float, ...]) -> Table:
    rows = tuple(
        Row(
            f"v{i}",
            {"m": aggregate(group), "words": "x"},
            tuple(f"e/{i}{j}" for j in range(len(group))),
        )
        for i, group in enumerate(groups)
    )
    return Table("t", (Column("m", "metric", "%", "max"), Column("words", "words")), rows)


def test_means_have_whiskers_and_the_single_runs(tmp_path: Path, drawn: list[Any]) -> None:
    draw_bars(bars((1.0, 2.0, 3.0), (5.0,)), "m", tmp_path / "b.png")
    (panel,) = drawn[0].axes
    rings = [line for line in panel.lines if line.get_markerfacecolor() == "none"]
    assert [list(line.get_xdata()) for line in rings] == [[1, 2, 3], []]
    (whisker,) = panel.containers
    low, high = whisker.lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((2 - 2.48414, 2 + 2.48414), rel=1e-4)
    labels = [text.get_text() for text in panel.get_yticklabels()]
    assert labels == ["v0 (n = 3)", "v1 (n = 1)"]
    assert panel.get_xlabel() == "metric (%)"


@pytest.mark.parametrize("metric", ["words", "unknown"])
def test_a_column_without_numbers_is_refused(tmp_path: Path, metric: str) -> None:
    with pytest.raises(SuiteError, match=metric):
        draw_bars(bars((1.0,)), metric, tmp_path / "b.png")
