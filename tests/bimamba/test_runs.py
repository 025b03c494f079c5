"""`bimamba runs`: lists, shows and prunes, and never touches a run that is at work."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bimamba.main import main
from bimamba.run_directory import borrowed_run_directory, claim_run_directory
from tests.run_directories import write_run

CHECKPOINTS = ("best-000-10.ckpt", "best-001-20.ckpt", "last.ckpt")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")


def age(directory: Path, seconds: float) -> None:
    for path in (directory, *directory.rglob("*")):
        os.utime(path, (time.time() - seconds,) * 2)


@contextmanager
def process_in(directory: Path) -> Iterator[None]:
    """Locks it as a run does; a lock of this process through another handle counts as foreign."""
    handle = os.open(directory, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
    os.close(handle)


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["runs", "list", *words, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four runs of all kinds, oldest first."""
    runs = [
        write_run(tmp_path, "vision/low", 50.0, params=3, seconds=5.0),
        write_run(tmp_path, "vision/high", 99.0, params=1, seconds=50.0, checkpoints=CHECKPOINTS),
        write_run(tmp_path, "vision/none", None, status="failed", params=2, seconds=1.0),
        write_run(
            tmp_path,
            "pose/a",
            workload="PoseLifting",
            monitor="val/mpjpe",
            mode="min",
            metrics={"best": {"val/mpjpe": 40.5}, "last": {"val/mpjpe": 41.0}, "raw": {}},
        ),
    ]
    for i, run in enumerate(runs):
        age(run, (4 - i) * 86400 - 3600)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["pose/a", "vision/none", "vision/high", "vision/low"]),
        (["--reverse"], ["vision/low", "vision/high", "vision/none", "pose/a"]),
        (["--experiment", "pose"], ["pose/a"]),
        (["--workload", "PoseLifting"], ["pose/a"]),
        (["--status", "failed"], ["vision/none"]),
        (["--metric", "val/top1>90"], ["vision/high"]),
        (["--metric", "val/top1 >= 50", "--metric", "val/top1<60"], ["vision/low"]),
        (["--metric", "val/mpjpe<=40.5"], ["pose/a"]),
        (["--since", "2d"], ["pose/a", "vision/none"]),
        (["--before", "50h"], ["vision/high", "vision/low"]),
        (["--since", "2099-01-01"], []),
        (["--sort", "best"], ["vision/high", "vision/low", "vision/none", "pose/a"]),
        (["--sort", "seconds"], ["pose/a", "vision/high", "vision/low", "vision/none"]),
        (["--sort", "params"], ["pose/a", "vision/low", "vision/none", "vision/high"]),
        (["--sort", "run"], ["pose/a", "vision/high", "vision/low", "vision/none"]),
        (["--sort", "size", "--experiment", "vision"], ["vision/high"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_lists_filters_and_sorts(
    root: Path, words: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = [entry["run"] for entry in listed(capsys, str(root), *words)]
    assert (found[:1] if "size" in words else found) == names


def test_json_holds_numbers_in_bytes_and_seconds(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = listed(capsys, str(root), "--metric", "val/top1>90")
    files = [path for path in (root / "vision" / "high").rglob("*") if path.is_file()]
    assert entry["size"] == sum(path.stat().st_size for path in files) > 3000
    assert (entry["best"], entry["unit"], entry["params"]) == (99.0, "%", 1)
    assert entry["directory"] == str(root / "vision" / "high")
    assert entry["written"] == pytest.approx(time.time() - 3 * 86400 + 3600, abs=60)


def test_the_table_has_a_line_a_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", str(root)]) == 0
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if "vision/high" in line).split()
    assert line[:5] == ["vision/high", "finished", "ImageClassification", "val/top1", "99"]
    assert line[5:] == ["%", "1", "50.0", "s", "3", "d", "5.2", "kB"] or "kB" in line
    assert "4 runs" in shown


def test_a_narrow_terminal_keeps_the_names(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["runs", "list", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "vision/high" in shown and "finished" in shown and "Image" not in shown


def test_list_is_the_default_and_runs_the_default_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs", "e/mine")
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert "e/mine" in capsys.readouterr().out
    assert main(["runs", "--status", "failed"]) == 0
    assert "no such run below runs" in capsys.readouterr().out


def test_half_written_runs_are_listed_with_what_they_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_run(tmp_path, "e/torn") / "summary.json").write_text('{"run": ')
    (write_run(tmp_path, "e/none") / "summary.json").unlink()
    assert main(["runs", "list", str(tmp_path)]) == 0
    found = listed(capsys, str(tmp_path))
    assert {entry["run"]: entry["status"] for entry in found} == {
        "e/torn": "unknown",
        "e/none": "unknown",
    }
    assert all(entry["problems"] for entry in found)


def test_a_run_that_runs_is_told_from_one_that_died(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {name: write_run(tmp_path, f"e/{name}", status="running") for name in ("a", "b", "c")}
    age(runs["a"], 7200)
    age(runs["b"], 7200)
    with process_in(runs["b"]):
        found = {entry["run"]: entry["status"] for entry in listed(capsys, str(tmp_path))}
    assert found == {"e/a": "died", "e/b": "running", "e/c": "running"}


def test_show_tells_everything_about_a_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = root / "vision" / "high"
    (run / "config_changes.yaml").write_text("model:\n  depth: 4\n")
    (run / "metrics.csv").unlink()
    assert main(["runs", "show", str(run)]) == 0
    shown = capsys.readouterr().out
    for words in (
        *("vision/high", "355 images, centre crop", "1.00 GiB", "  depth: 4", "val/top1 %"),
        *("1.0 kB  checkpoints/last.ckpt", "metrics.csv is not there.", "5,517,952"),
    ):
        assert words in shown


def left(run: Path) -> set[str]:
    return {path.name for path in run.rglob("*.ckpt")}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (None, {"best-001-20.ckpt", "last.ckpt"}),
        ("both", {"best-001-20.ckpt", "last.ckpt"}),
        ("best", {"best-001-20.ckpt"}),
        ("last", {"last.ckpt"}),
        ("none", set()),
    ],
)
def test_prune_keeps_what_it_is_told_and_frees_what_it_says(
    root: Path, keep: str | None, kept: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = root / "vision" / "high"
    others = sorted(path for path in root.rglob("*") if path.suffix != ".ckpt")
    words = ["--keep", keep] if keep else []
    assert main(["runs", "prune", str(root), *words]) == 0
    freed = f"{3 - len(kept)}.0 kB"
    assert f"would free {freed}; nothing was deleted" in capsys.readouterr().out
    assert left(run) == {*CHECKPOINTS}
    assert main(["runs", "prune", str(root), *words, "--yes"]) == 0
    assert f"freed {freed}" in capsys.readouterr().out
    assert left(run) == kept
    assert sorted(path for path in root.rglob("*") if path.suffix != ".ckpt") == others


def test_prune_never_touches_a_run_at_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = write_run(tmp_path, "e/locked", checkpoints=CHECKPOINTS)
    recent = write_run(tmp_path, "e/recent", checkpoints=CHECKPOINTS, status="running")
    died = write_run(tmp_path, "e/died", checkpoints=CHECKPOINTS, status="running")
    age(died, 7200)
    with process_in(locked):
        assert main(["runs", "prune", str(tmp_path), "--keep", "none", "--yes"]) == 0
    assert (left(locked), left(recent), left(died)) == ({*CHECKPOINTS}, {*CHECKPOINTS}, set())
    shown = capsys.readouterr().out
    assert "e/locked: left alone, a process is at work in it" in shown
    assert "e/recent: left alone" in shown


def test_prune_respects_the_claim_of_a_real_fit(tmp_path: Path) -> None:
    run = write_run(tmp_path, "e/a", checkpoints=CHECKPOINTS)
    claim_run_directory(run)
    try:
        with borrowed_run_directory(run) as free:
            assert not free
    finally:
        from bimamba.run_directory import release_run_directories

        release_run_directories()
    with borrowed_run_directory(run) as free:
        assert free


def test_prune_takes_the_filters_of_list(root: Path) -> None:
    assert main(["runs", "prune", str(root), "--keep", "none", "--since", "1d", "--yes"]) == 0
    assert left(root / "vision" / "high") == {*CHECKPOINTS}


def test_an_unknown_best_step_keeps_all_that_were_best(tmp_path: Path) -> None:
    run = write_run(tmp_path, "e/a", checkpoints=CHECKPOINTS, best_step=None)
    assert main(["runs", "prune", str(run), "--yes"]) == 0
    assert left(run) == {*CHECKPOINTS}


def test_slurms_newer_checkpoint_is_the_last_one(tmp_path: Path) -> None:
    run = write_run(tmp_path, "e/a", checkpoints=CHECKPOINTS)
    age(run, 7200)
    for number in (1, 2):
        (run / f"hpc_ckpt_{number}.ckpt").write_bytes(b"x")
        os.utime(run / f"hpc_ckpt_{number}.ckpt", (time.time() + number - 10,) * 2)
    assert main(["runs", "prune", str(run), "--keep", "last", "--yes"]) == 0
    assert left(run) == {"last.ckpt", "hpc_ckpt_2.ckpt"}


def test_a_link_is_kept_with_what_it_leads_to(tmp_path: Path) -> None:
    run = write_run(tmp_path, "e/a", checkpoints=CHECKPOINTS[:2])
    (run / "checkpoints" / "last.ckpt").symlink_to("best-000-10.ckpt")
    assert main(["runs", "prune", str(run), "--keep", "last", "--yes"]) == 0
    assert left(run) == {"best-000-10.ckpt", "last.ckpt"}


def test_sharded_checkpoints_are_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, "e/a", checkpoints=("last.ckpt",))
    shards = run / "checkpoints" / "best-000-10.ckpt"
    shards.mkdir()
    (shards / "0.distcp").write_bytes(b"x" * 5000)
    assert main(["runs", "prune", str(run), "--keep", "last", "--yes"]) == 0
    assert not shards.exists() and "freed 5.0 kB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "nowhere"], "no such folder"),
        (["list", ".", "--metric", "val/top1"], "in quotes"),
        (["list", ".", "--metric", "val/top1>high"], "in quotes"),
        (["list", ".", "--since", "yesterday"], "12h"),
        (["show", "nowhere"], "no such folder"),
        (["prune", "nowhere"], "nothing there"),
    ],
)
def test_refuses_in_four_parts(
    tmp_path: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", *words]) == 2
    assert message in capsys.readouterr().err
