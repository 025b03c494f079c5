"""`bimamba ablate` with a stand-in for training: skipping, failing, stopping, tables."""

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from bimamba.main import main
from tests.bimamba.ablation.tiny import TEXT, TWO, stand_in

LR = "model.init_args.optimizer.lr"
MIXED = f"""variants:
  first: {{{LR}: 1.0}}
  second: {{{LR}: 2.0}}
  diverging: {{{LR}: 7.0}}
  failing: {{{LR}: 11.0}}
  killed: {{{LR}: 13.0}}
"""


@pytest.fixture(autouse=True)
def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch)


def ablate(folder: Path, text: str, *words: str) -> int:
    path = folder / "tiny.yaml"
    path.write_text(TEXT + text)
    return main(["ablate", str(path), "--output", str(folder / "runs"), *words])


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "runs" / "tiny" / "table.csv").open() as file:
        return {row["variant"]: row for row in csv.DictReader(file)}


def test_failures_are_reported_and_hold_up_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate(tmp_path, MIXED + "baseline: first") == 1
    said = capsys.readouterr().out
    assert "failing-s1 failed: none at all" in said
    assert "killed-s0 failed: it ended with signal 9" in said
    assert "diverging-s0 diverged: val/top1, val/loss is not finite" in said
    assert "4 runs left; go on with: bimamba ablate" in said
    found = rows(tmp_path)
    assert list(found) == ["first", "second", "diverging", "failing", "killed"]
    # 50 + lr + 2 seed: a half width of t(1, 0.975) * sqrt(2) / sqrt(2) = 12.706.
    assert float(found["second"]["val/top1"]) == 53.0
    assert float(found["second"]["val/top1_ci95"]) == pytest.approx(12.7062, abs=1e-3)
    assert found["second"]["val/top1_n"] == "2"
    assert (found["second"]["params"], found["second"]["macs"]) == ("1000", "500")
    assert found["second"]["runs"] == "tiny/second-s0 tiny/second-s1"
    assert float(found["second"]["val/top1-first"]) == 1.0
    assert float(found["second"]["val/top1-first_ci95"]) == 0.0
    assert found["first"]["val/top1-first"] == ""
    assert found["diverging"]["val/top1"] == "diverged"
    assert found["killed"]["runs"] == ""
    folder = tmp_path / "runs" / "tiny"
    assert "MACs counted by hand" in (folder / "table.md").read_text()
    assert "toprule" in (folder / "table.tex").read_text()
    for picture in ("curves.png", "bars.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "ablation.json").read_text())
    states = {run["run"]: run["state"] for run in record["runs"]}
    assert states["tiny/first-s1"] == "finished" and states["tiny/killed-s1"] == "failed"
    assert len({run["settings"] for run in record["runs"]}) == len(record["runs"])


def test_a_second_call_skips_what_is_done_and_tries_the_rest_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"variants: {{first: {{}}, failing: {{{LR}: 11.0}}, killed: {{{LR}: 13.0}}}}\n"
    ablate(tmp_path, text)
    runs = tmp_path / "runs" / "tiny"
    before = {name: (runs / name / "summary.json").stat().st_mtime_ns for name in os.listdir(runs)
              if (runs / name / "summary.json").is_file()}  # fmt: skip
    first = (runs / "table.csv").read_text()
    capsys.readouterr()
    assert ablate(tmp_path, text) == 1
    after = {name: (runs / name / "summary.json").stat().st_mtime_ns for name in before}
    again = {name.rpartition("-")[0] for name in before if before[name] != after[name]}
    assert again == {"failing", "killed"}
    assert (runs / "table.csv").read_text() == first
    said = capsys.readouterr().out
    assert "killed-s0 tries again" in said and "failing-s0 tries again" in said


def test_several_at_once_give_the_same_table(tmp_path: Path) -> None:
    assert ablate(tmp_path, TWO) == 0
    one = rows(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "earlier")
    assert ablate(tmp_path, TWO, "--parallel", "3") == 0
    assert rows(tmp_path) == one


def test_only_and_table_only_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs" / "tiny"
    assert ablate(tmp_path, TWO, "--only", "one-*") == 0
    assert not (runs / "two-s0").exists()
    assert rows(tmp_path)["two"]["val/top1"] == "waiting"
    (runs / "table.csv").unlink()
    assert ablate(tmp_path, TWO, "--table-only") == 0
    assert rows(tmp_path)["one"]["runs"] == "tiny/one-s0 tiny/one-s1"
    capsys.readouterr()
    assert ablate(tmp_path, TWO, "--only", "one") == 2
    assert "did you mean 'one*'?" in capsys.readouterr().err


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate(tmp_path, TWO, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "model.network.bimamba_type: none" in said
    assert "two-s1" in said and "waiting" in said
    assert not (tmp_path / "runs").exists()


def test_runs_of_another_configuration_are_refused_then_moved_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate(tmp_path, TWO) == 0
    longer = TWO.replace("two: {}", "two: {trainer.max_epochs: 3}")
    assert ablate(tmp_path, longer) == 2
    said = capsys.readouterr().err
    assert "two-s0: trainer.max_epochs: 2 in the run, 3 in the plan" in said
    assert "one-s0" not in said
    assert ablate(tmp_path, longer, "--table-only") == 1
    assert "made by another configuration" in capsys.readouterr().out
    assert rows(tmp_path)["two"]["runs"] == ""
    assert ablate(tmp_path, longer, "--rerun", "two-*") == 0
    moved = sorted(path.name for path in (tmp_path / "runs" / "tiny-replaced").iterdir())
    assert [name[:6] for name in moved] == ["two-s0", "two-s1"]
    kept = tmp_path / "runs" / "tiny-replaced" / moved[0] / "config.yaml"
    assert yaml.safe_load(kept.read_text())["trainer"]["max_epochs"] == 2


def test_an_unknown_metric_costs_a_column_not_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate(tmp_path, TWO + "metrics: [val/lss, val/loss]") == 1
    assert "no run logs the metric val/lss: did you mean val/loss" in capsys.readouterr().out
    assert "val/loss_ci95" in rows(tmp_path)["one"]
    assert "val/top1" not in rows(tmp_path)["one"]


def test_runs_of_another_protocol_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate(tmp_path, TWO) == 0
    path = tmp_path / "runs" / "tiny" / "one-s1" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "protocol": "another"}))
    assert ablate(tmp_path, TWO) == 1
    assert "one-s1 does not compare with the others" in capsys.readouterr().out
    assert rows(tmp_path)["one"]["runs"] == "tiny/one-s0"


def test_an_interrupt_stops_the_runs_and_tells_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"variants: {{quick: {{}}, slow: {{{LR}: 17.0}}}}\n"
    summary = tmp_path / "runs" / "tiny" / "slow-s0" / "summary.json"

    def press() -> None:
        while not summary.is_file():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    before = signal.getsignal(signal.SIGINT)
    assert ablate(tmp_path, text) == 130
    presser.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert json.loads(summary.read_text())["status"] == "interrupted"
    said = capsys.readouterr().out
    assert "slow-s0 stopped" in said
    assert "3 runs left; go on with: bimamba ablate" in said
    assert rows(tmp_path)["quick"]["runs"] == "tiny/quick-s0"


def test_a_run_in_another_process_is_waited_for(tmp_path: Path) -> None:
    from bimamba.run_directory import claim_run_directory, release_run_directories

    folder = tmp_path / "runs" / "tiny" / "two-s0"
    folder.mkdir(parents=True)
    claim_run_directory(folder)
    others = [tmp_path / "runs" / "tiny" / n / "summary.json" for n in ("two-s1", "one-s1")]

    def give_back() -> None:
        while not all(path.is_file() for path in others):
            time.sleep(0.05)
        release_run_directories()

    other = threading.Thread(target=give_back)
    other.start()
    assert ablate(tmp_path, TWO) == 0
    other.join()
    assert rows(tmp_path)["two"]["runs"] == "tiny/two-s0 tiny/two-s1"


def test_a_table_that_cannot_be_written_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bimamba.ablation import results

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_table", full)
    assert ablate(tmp_path, TWO) == 1
    assert capsys.readouterr().out.count("no table yet") == 4
    monkeypatch.undo()
    assert ablate(tmp_path, TWO, "--table-only") == 0
    assert rows(tmp_path)["two"]["runs"] == "tiny/two-s0 tiny/two-s1"


def test_a_wrong_number_of_processes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate(tmp_path, TWO, "--parallel", "0") == 2
    assert "--parallel" in capsys.readouterr().err
