"""`bimamba compare`: what it prints and writes, what it leaves out, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from bimamba.main import main
from bimamba.run_files import find_runs, read_run
from tests.demo import TINY
from tests.run_directories import CONFIG, SUMMARY, write_run

DEPTH = "model.init_args.network.init_args.depth"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two depths with three seeds each, and a lone third depth."""
    for depth, base in ((4, 97.0), (8, 98.0)):
        for seed in range(3):
            name, top1 = f"digits/d{depth}s{seed}", base + seed / 10
            write_run(tmp_path, name, top1, seed=seed, config={DEPTH: depth}, params=depth * 1000)
    write_run(tmp_path, "digits/d2", 90.0, config={DEPTH: 2}, params=2000)
    return tmp_path


def rows(directory: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((directory / "table.csv").read_text().splitlines()))


def test_seeds_are_one_row_with_an_interval_and_every_run_is_named(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(grid), "--output", str(grid / "out")]) == 0
    lone, four, eight = rows(grid / "out")
    assert [row["variant"] for row in (lone, four, eight)] == ["depth=2", "depth=4", "depth=8"]
    assert float(four["val/top1"]) == pytest.approx(97.1)
    assert float(four["val/top1_ci95"]) == pytest.approx(4.30265 * 0.1 / 3**0.5, rel=1e-4)
    assert (four["val/top1_n"], lone["val/top1_n"], lone["val/top1_ci95"]) == ("3", "1", "")
    assert four["runs"] == "digits/d4s0 digits/d4s1 digits/d4s2"
    shown = capsys.readouterr().out
    for words in ("98.10 ± 0.25", "digits/d8s2", f"{DEPTH}: 2, 4, 8", "Student's t"):
        assert words in shown


def test_writes_tables_figures_and_differences(grid: Path) -> None:
    assert main(["compare", str(grid / "digits"), "--output", str(grid / "out")]) == 0
    assert {path.name for path in (grid / "out").iterdir()} == {
        *("table.csv", "table.md", "table.tex"),
        *("curves.png", "means.png", "config_differences.md"),
    }
    for name in ("curves.png", "means.png"):
        assert Image.open(grid / "out" / name).size[0] > 500
    differences = (grid / "out" / "config_differences.md").read_text()
    assert f"| {DEPTH} | 2 | 4 | 8 |" in differences
    assert "| seed_everything | 0 | 0, 1, 2 | 0, 1, 2 |" in differences
    assert "- depth=4: `digits/d4s0`, `digits/d4s1`, `digits/d4s2`" in differences


def test_without_output_nothing_is_written(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(grid)
    before = sorted(grid.rglob("*"))
    assert main(["compare", str(grid)]) == 0
    assert sorted(grid.rglob("*")) == before


def test_takes_runs_folders_and_patterns_each_run_once(grid: Path) -> None:
    words = [str(grid / "digits" / "d2"), str(grid / "digits"), str(grid / "digits" / "d4*")]
    assert main(["compare", *words, "--group-by", "run", "--output", str(grid / "out")]) == 0
    ids = [row["runs"] for row in rows(grid / "out")]
    assert len(ids) == 7 == len(set(ids)) and ids[0] == "digits/d2"


def test_shows_the_asked_metric_at_its_best_and_at_the_end(grid: Path) -> None:
    words = ["--metric", "val/loss", "--output", str(grid / "out")]
    assert main(["compare", str(grid), *words]) == 0
    names = list(rows(grid / "out")[0])
    assert names[:3] == ["variant", "val/loss", "val/loss_ci95"] and "last:val/loss" in names
    assert "val/top1" not in names


def test_a_group_of_unlike_runs_says_in_what_they_differ(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--group-by", "experiment", "--output", str(grid / "out")]
    assert main(["compare", str(grid), *words]) == 0
    (row,) = rows(grid / "out")
    assert (row["variant"], row["val/top1_n"]) == ("digits", "7")
    assert f"Runs of one row differ in {DEPTH} as well." in capsys.readouterr().out


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_what_has_not_finished_is_left_out_and_named_unless_asked_for(
    tmp_path: Path, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "e/good")
    write_run(tmp_path, "e/half", 50.0, seed=1, status=status)
    out = tmp_path / "out"
    assert main(["compare", str(tmp_path / "e"), "--output", str(out)]) == 0
    assert [row["runs"] for row in rows(out)] == ["e/good"]
    assert "left out\n  e/half: it " in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "e"), "--output", str(out), "--unfinished"]) == 0
    assert [row["runs"] for row in rows(out)] == ["e/good e/half"]
    shown = capsys.readouterr().out
    assert "to be read with care\n  e/half: it " in shown and "left out" not in shown


@pytest.mark.parametrize("damage", ["empty", "torn", "no summary", "no results", "other"])
def test_a_damaged_or_diverged_run_never_stops_the_rest(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "e/good")
    bad = write_run(tmp_path, "e/bad", None if damage == "no results" else 1.0, seed=1)
    text = (bad / "summary.json").read_text()
    if damage == "no summary":
        (bad / "summary.json").unlink()
    elif damage != "no results":
        content = {"empty": "", "torn": text[:99], "other": "[1, 2]"}[damage]
        (bad / "summary.json").write_text(content)
    assert main(["compare", str(tmp_path / "e"), "--output", str(tmp_path / "out")]) == 0
    assert [row["runs"] for row in rows(tmp_path / "out")] == ["e/good"]
    assert "left out\n  e/bad: " in capsys.readouterr().out


def test_what_diverged_after_its_best_is_shown_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"best": {"val/top1": 60.0}, "last": {"val/top1": None}, "raw": {}}
    write_run(tmp_path, "e/bad", metrics=metrics)
    write_run(tmp_path, "e/good", seed=1)
    assert main(["compare", str(tmp_path / "e"), "--group-by", "run"]) == 0
    assert "e/bad: its last val/top1 is not finite" in capsys.readouterr().out


def test_evaluations_among_trainings_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "e/good")
    metrics = {"best": {}, "last": {"test/top1": 95.0}, "raw": {}}
    write_run(tmp_path, "e/test-1", metrics=metrics, steps=0, protocol="another")
    assert main(["compare", str(tmp_path / "e")]) == 0
    assert "e/test-1: it only evaluates" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "e"), "--metric", "test/top1"]) == 0
    shown = capsys.readouterr().out
    assert "95" in shown and "e/good: it does not log test/top1" in shown


def test_the_same_run_twice_is_no_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "e/a", 97.0)
    write_run(tmp_path, "e/b", 97.5)
    assert main(["compare", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    assert len(rows(tmp_path / "out")) == 2 and "val/top1_ci95" not in rows(tmp_path / "out")[0]
    assert "e/b: same configuration and seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{root}/nowhere"], "nothing there"),
        (["{root}/empty"], "no run there"),
        (["{root}/e", "{root}/other"], "PoseLifting"),
        (["{root}/e", "--metric", "val/top2"], "did you mean val/top1"),
        (["{root}/e", "--group-by", "dept"], "did you mean depth"),
        (["{root}/running"], "--unfinished"),
    ],
)
def test_refuses_in_four_parts(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "e/a")
    write_run(tmp_path, "other/a", workload="PoseLifting")
    write_run(tmp_path, "running/a", status="running")
    (tmp_path / "empty").mkdir()
    assert main(["compare", *(word.format(root=tmp_path) for word in words)]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    for part in ("expected: ", "found: ", "where: ", "cure: "):
        assert part in shown


def test_a_narrow_terminal_drops_columns_and_says_which(
    grid: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["compare", str(grid)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "98.10 ± 0.25" in shown
    assert "in the files of --output:" in shown and "peak memory" in shown


def test_runs_inside_a_run_are_none(tmp_path: Path) -> None:
    run = write_run(tmp_path, "e/a")
    (run / "wandb" / "files").mkdir(parents=True)
    (run / "wandb" / "files" / "config.yaml").write_text("{}")
    assert find_runs(tmp_path) == [run]


def test_a_real_run_compares_and_has_the_format_of_these_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--trainer.max_epochs", "1", "--experiment", "real", "--run_name", "s0"]
    assert main(["fit", *TINY, *words, "--output", str(tmp_path)]) == 0
    real = read_run(tmp_path / "real" / "s0")
    made = json.loads((write_run(tmp_path, "made/a") / "summary.json").read_text())
    assert real.summary.keys() == made.keys()
    assert real.section("data").keys() == SUMMARY["data"].keys()
    assert CONFIG.keys() <= real.config.keys()
    assert CONFIG["model"].keys() == real.config["model"].keys()
    assert real.number("macs") and "FlopCounterMode" in real.summary["macs_counter"]
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "real"), "--output", str(tmp_path / "out")]) == 0
    (row,) = rows(tmp_path / "out")
    assert (row["variant"], row["runs"]) == ("real", "real/s0")
    assert float(row["macs"]) == real.number("macs")
    assert "left out" not in capsys.readouterr().out
