"""Runs as rows: which columns there are, what stands in them, and what is refused."""

from pathlib import Path

import pytest

from bimamba.comparison.rows import check_comparable, common_columns, group_row, value
from bimamba.comparison.table import Cell
from bimamba.run_files import RunFiles, read_run
from blocks.errors import SuiteError
from tests.run_directories import SUMMARY, write_run


def runs(*directories: Path) -> list[RunFiles]:
    return [read_run(directory) for directory in directories]


def test_columns_are_the_monitor_twice_then_metrics_then_costs(tmp_path: Path) -> None:
    found = common_columns(runs(write_run(tmp_path, "e/a")), None)
    assert [column.name for column in found] == [
        *("val/top1", "last:val/top1", "val/loss"),
        *("params", "macs", "samples_per_second", "peak_memory", "seconds"),
    ]
    assert [column.mode for column in found[:3]] == ["max", "max", "min"]
    assert [column.unit for column in found[:3]] == ["%", "%", ""]


def test_asked_metrics_are_shown_at_the_best_step_and_at_the_end(tmp_path: Path) -> None:
    found = common_columns(runs(write_run(tmp_path, "e/a")), ["val/loss"])
    assert [column.name for column in found][:3] == ["val/loss", "last:val/loss", "params"]


def test_a_cost_that_no_run_knows_is_no_column(tmp_path: Path) -> None:
    found = runs(write_run(tmp_path, "e/a", macs=None), write_run(tmp_path, "e/b", macs=None))
    assert "macs" not in [column.name for column in common_columns(found, None)]


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        *(("val/loss", "min"), ("val/mpjpe_walking", "min"), ("val/top1_error", "min")),
        *(("val/top5", "max"), ("val/mean_iou", "max"), ("val/ap50", "max")),
        *(("val/diversity", "none"), ("val/epoch", "none")),
    ],
)
def test_the_direction_of_a_metric_is_known_or_left_open(
    tmp_path: Path, metric: str, mode: str
) -> None:
    metrics = {"best": {"val/top1": 1.0, metric: 2.0}, "last": {}, "raw": {}}
    found = common_columns(runs(write_run(tmp_path, "e/a", metrics=metrics)), [metric])
    assert found[0].mode == mode


def test_the_summary_decides_the_direction_of_what_it_monitors(tmp_path: Path) -> None:
    found = runs(write_run(tmp_path, "e/a", mode="min"))
    assert common_columns(found, None)[0].mode == "min"


def test_a_metric_that_nobody_logs_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"found: val/top2\n.*\ncure: did you mean val/top1"):
        common_columns(runs(write_run(tmp_path, "e/a")), ["val/top2"])


def test_a_row_is_the_mean_over_its_runs_and_names_them(tmp_path: Path) -> None:
    found = runs(*(write_run(tmp_path, f"e/{i}", 90.0 + i, seed=i) for i in range(3)))
    row = group_row("three", found, common_columns(found, None))
    cell = row.cells["val/top1"]
    assert isinstance(cell, Cell)
    assert (cell.mean, cell.count, cell.values) == (pytest.approx(91), 3, (90.0, 91.0, 92.0))
    assert cell.half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert (row.label, row.runs) == ("three", ("e/0", "e/1", "e/2"))


def test_a_run_without_a_value_is_not_counted_in_that_mean(tmp_path: Path) -> None:
    found = runs(write_run(tmp_path, "e/a", macs=None), write_run(tmp_path, "e/b", macs=10))
    cell = group_row("r", found, common_columns(found, None)).cells["macs"]
    assert cell == Cell(10.0, None, 1, (10.0,))


def test_an_evaluation_shows_what_it_measured(tmp_path: Path) -> None:
    metrics = {"best": {}, "last": {"test/top1": 95.5}, "raw": {}}
    (run,) = runs(write_run(tmp_path, "e/test-1", metrics=metrics))
    names = [column.name for column in common_columns([run], None)]
    assert names[0] == "test/top1"
    assert value(run, "test/top1") == 95.5


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"workload": "PoseLifting"}, "workload", "PoseLifting"),
        ({"protocol": "355 images, whole"}, "protocol", "355 images, whole"),
        ({"data": SUMMARY["data"] | {"hash": "0123"}}, "data", "embedded data of hash 0123"),
        ({"data": SUMMARY["data"] | {"synthetic": False}}, "data", "data of hash ac790297cd68"),
        ({"config": {"trainer.limit_val_batches": 2}}, "protocol", "limit_val_batches 2"),
        ({"config": {"trainer.limit_val_batches": 1}}, "protocol", "limit_val_batches 1"),
    ],
    ids=["workload", "protocol", "hash", "synthetic", "part of the data", "one batch"],
)
def test_what_does_not_compare_is_refused_with_what_each_says(
    tmp_path: Path, changes: dict[str, object], name: str, words: str
) -> None:
    found = runs(write_run(tmp_path, "e/a"), write_run(tmp_path, "e/b", **changes))
    with pytest.raises(SuiteError, match=f"expected: runs of one {name}") as error:
        check_comparable(found)
    assert f"{words} (e/b)" in str(error.value) and "(e/a)" in str(error.value)


def test_all_batches_by_another_spelling_are_all_batches(tmp_path: Path) -> None:
    config = {"trainer.limit_val_batches": 1.0}
    check_comparable(runs(write_run(tmp_path, "e/a"), write_run(tmp_path, "e/b", config=config)))


def test_the_same_data_elsewhere_are_the_same_data(tmp_path: Path) -> None:
    elsewhere = SUMMARY["data"] | {"root": "/other"}
    check_comparable(runs(write_run(tmp_path, "e/a"), write_run(tmp_path, "e/b", data=elsewhere)))


def test_without_a_hash_the_folder_decides(tmp_path: Path) -> None:
    bare = SUMMARY["data"] | {"hash": None}
    check_comparable(runs(write_run(tmp_path, "e/a"), write_run(tmp_path, "e/b", data=bare)))
    other = write_run(tmp_path, "e/c", data=bare | {"root": "/other"})
    with pytest.raises(SuiteError, match="/other"):
        check_comparable(runs(tmp_path / "e/a", other))


def test_many_runs_are_named_by_the_first_few(tmp_path: Path) -> None:
    found = runs(*(write_run(tmp_path, f"e/{i}") for i in range(5)))
    with pytest.raises(SuiteError, match=r"e/0, e/1, e/2 and 2 more"):
        check_comparable([*found, *runs(write_run(tmp_path, "e/x", workload="Other"))])
