"""`bimamba sweep` from the command to its files, with a stand-in for `fit`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bimamba.main import main
from bimamba.sweeping import execution
from bimamba.sweeping.description import read_sweep
from bimamba.sweeping.plan import make_sweep_plan
from bimamba.sweeping.study import Study
from tests.bimamba.ablation.tiny import TEXT, stand_in

LR = "model.init_args.optimizer.lr"
BASE = TEXT.replace("seeds: [0, 1]\n", "")

Sweeper = Callable[..., int]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeper:
    """Runs a sweep over learning rates; more lines of its file, then more words."""
    stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(execution, "_POLL", 0.02)

    def run(rates: str, *words: str, more: str = "sampler: grid\n") -> int:
        path = tmp_path / "search.yaml"
        path.write_text(f"{BASE}space: {{{LR}: {rates}}}\n{more}")
        return main(["sweep", str(path), "--output", str(tmp_path / "runs"), *words])

    return run


def record(folder: Path) -> list[dict[str, object]]:
    content = json.loads((folder / "runs" / "search" / "sweep.json").read_text())
    trials: list[dict[str, object]] = content["trials"]
    return trials


def test_a_grid_is_searched_and_what_is_hopeless_given_up(tmp_path: Path, sweep: Sweeper) -> None:
    assert sweep("[1.0, 3.0, 2.0, 19.0]") == 0
    trials = record(tmp_path)
    assert [t["state"] for t in trials] == ["complete"] * 3 + ["pruned"]
    assert [t["value"] for t in trials] == [51.0, 53.0, 52.0, None]
    best = yaml.safe_load((tmp_path / "runs" / "search" / "best.yaml").read_text())
    assert best["experiment"] == "search_best" and "run_name" not in best
    for name in ("trials.csv", "trials.md", "trials.tex", "history.png", "parallel.png"):
        assert (tmp_path / "runs" / "search" / name).stat().st_size


def test_a_search_that_is_over_stays_so(tmp_path: Path, sweep: Sweeper) -> None:
    assert sweep("[1.0, 2.0]") == 0
    log = tmp_path / "runs" / "search" / "logs" / "trial000-s0.txt"
    before = log.read_text()
    assert sweep("[1.0, 2.0]") == 0
    assert log.read_text() == before and len(record(tmp_path)) == 2


def test_more_trials_join_a_study(tmp_path: Path, sweep: Sweeper) -> None:
    random = "sampler: random\ntrials: 2\n"
    assert sweep("{range: [1.0, 5.0]}", more=random) == 0
    first = record(tmp_path)
    assert sweep("{range: [1.0, 5.0]}", "--trials", "4", more=random) == 0
    assert record(tmp_path)[:2] == first and len(record(tmp_path)) == 4
    rates = [t["params"][LR] for t in record(tmp_path)]  # type: ignore[index]
    assert len({*rates}) == 4


def test_a_trial_that_fails_diverges_or_dies_holds_up_nothing(
    tmp_path: Path, sweep: Sweeper
) -> None:
    assert sweep("[11.0, 7.0, 13.0, 2.0]") == 0
    trials = record(tmp_path)
    assert [t["state"] for t in trials] == ["failed"] * 3 + ["complete"]
    reasons = [str(t["reason"]) for t in trials]
    assert "none at all" in reasons[0] and "not finite" in reasons[1] and "signal 9" in reasons[2]


def test_the_value_of_a_trial_is_the_mean_over_its_seeds(tmp_path: Path, sweep: Sweeper) -> None:
    assert sweep("[1.0]", more="sampler: grid\nseeds: [0, 1]\n") == 0
    assert record(tmp_path)[0]["value"] == 52.0  # 51 and 53.


def test_values_that_no_network_can_be_built_from_are_told(
    tmp_path: Path, sweep: Sweeper, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("[fast]") == 2
    assert "nothing has been run" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_key_that_does_not_exist_names_the_nearest(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(f"{BASE}space: {{model.init_args.optimizer.rl: [1, 2]}}\ntrials: 2\n")
    assert main(["sweep", str(path), "--output", str(tmp_path)]) == 2
    assert f"did you mean {LR}?" in capfd.readouterr().err


def test_the_study_of_another_search_is_refused(
    sweep: Sweeper, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("[1.0]") == 0
    assert sweep("[1.0, 2.0]") == 2
    said = capfd.readouterr().err
    assert "another search" in said and "space" in said
    assert sweep("[1.0]", more="sampler: grid\nseeds: [1]\n") == 2


def test_a_broken_study_is_left_alone(
    tmp_path: Path, sweep: Sweeper, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "search"
    folder.mkdir(parents=True)
    (folder / "study.journal").write_text("nothing of ours\n")
    assert sweep("[1.0]") == 2
    assert "cannot be read" in capfd.readouterr().err
    assert (folder / "study.journal").read_text() == "nothing of ours\n"


def test_a_metric_that_nobody_logs_is_told_with_those_there_are(
    tmp_path: Path, sweep: Sweeper
) -> None:
    assert sweep("[1.0]", more="sampler: grid\nmetric: val/nothing\nmode: max\n") == 1
    assert "logs no val/nothing, but val/top1" in str(record(tmp_path)[0]["reason"])


def test_a_trial_without_its_process_goes_to_the_next_that_asks(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(f"{BASE}space: {{{LR}: {{range: [0.1, 1.0]}}}}\ntrials: 2\n")
    plan = make_sweep_plan(read_sweep(path), tmp_path / "runs")

    def join() -> Study:
        return Study(plan.sweep, plan.directory, plan.metric, plan.mode, plan.settings)

    one, other = join(), join()
    mine, theirs = one.next(), other.next()
    assert mine is not None and theirs is not None and mine.number != theirs.number
    assert other.next() is None and other.busy()
    one.report(mine, [1.0, 2.0])
    one.give_back(mine)
    again = other.next()
    assert again is not None and again.number == mine.number
    assert again.params == mine.params and again.reported == 2


def test_the_same_file_becomes_a_sweep_of_wandb(tmp_path: Path, sweep: Sweeper) -> None:
    path = tmp_path / "wandb.yaml"
    more = "sampler: tpe\ntrials: 6\n"
    assert (
        sweep("{log_range: [0.1, 1.0]}", "--export", "wandb", "--export-to", str(path), more=more)
        == 0
    )
    content = yaml.safe_load(path.read_text())
    assert content["method"] == "bayes" and content["run_cap"] == 6
    assert content["metric"] == {"name": "val/top1", "goal": "maximize"}
    assert content["parameters"][LR]["distribution"] == "log_uniform_values"
    assert content["command"][:3] == ["${env}", "bimamba", "fit"]
    assert "--trainer.max_epochs=2" in content["command"] and content["command"][-1] == "${args}"
    assert not (tmp_path / "runs" / "search").exists()
