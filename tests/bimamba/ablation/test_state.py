"""Where a run stands, from whatever is left of its directory."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bimamba.ablation.plan import PlannedRun
from bimamba.ablation.state import foreign_settings, in_use, last_words, look
from bimamba.run_directory import claim_run_directory, release_run_directories
from blocks.errors import SuiteError


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    config = {"trainer": {"max_epochs": 4}, "seed_everything": 0, "output": "runs"}
    return PlannedRun("a", "", 0, tmp_path / "e" / "a-s0", config)


def leave(run: PlannedRun, status: str, top1: float | None = 3.0, **metrics: float | None) -> None:
    run.directory.mkdir(parents=True, exist_ok=True)
    last: dict[str, Any] = {"val/top1": top1, "val/loss": 1.0, **metrics}
    summary = {"status": status, "monitor": "val/top1", "epochs": 2}
    summary["metrics"] = {"best": last, "last": last}
    (run.directory / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("status", "state"),
    [("finished", "finished"), ("interrupted", "cut"), ("running", "cut"), ("failed", "failed")],
)
def test_a_summary_tells_the_state(run: PlannedRun, status: str, state: str) -> None:
    assert look(run).state == "waiting"
    leave(run, status)
    found = look(run)
    assert (found.state, found.value, found.epochs) == (state, 3.0, 2)


def test_half_written_directories_can_go_on(run: PlannedRun) -> None:
    run.directory.mkdir(parents=True)
    assert look(run).state == "waiting"
    (run.directory / "config.yaml").write_text("trainer: {max_")
    assert look(run).state == "cut"
    assert foreign_settings(run, dict) == []
    (run.directory / "summary.json").write_text('{"status": "fini')
    assert look(run).state == "cut"
    (run.directory / "summary.json").write_text("[1]")
    assert look(run).state == "cut"


@pytest.mark.parametrize("metrics", [{"top1": None}, {"train/loss": None}, {"val/loss": None}])
def test_a_finished_run_without_finite_numbers_diverged(
    run: PlannedRun, metrics: dict[str, None]
) -> None:
    leave(run, "finished", **metrics)  # type: ignore[arg-type]
    assert look(run).state == "diverged"
    assert "is not finite" in look(run).reason


def test_a_metric_that_need_not_exist_may_be_missing(run: PlannedRun) -> None:
    leave(run, "finished", **{"val/iou_bathtub": None})
    assert look(run).state == "finished"


def test_a_failure_gives_its_last_reason(run: PlannedRun) -> None:
    run.log.parent.mkdir(parents=True)
    run.log.write_text(
        "epoch 1\nbimamba: error\nexpected: x\nfound: old\n"
        "--- again\nbimamba: error\nexpected: room\nfound: a full disk\nwhere: here\n"
    )
    assert look(run).state == "failed", "it died before its first file"
    leave(run, "failed")
    assert look(run).reason == "a full disk"
    run.log.write_text("bimamba: error\nexpected: finite\nfound: a non-finite output of layer x\n")
    assert look(run).state == "diverged"
    run.log.write_text("bimamba: error\nOSError: broken pipe\nrun again with --debug\n")
    assert look(run).reason == "OSError: broken pipe"
    run.log.write_text("--- 1\nbimamba: error\nfound: old\n--- 2\nepoch 1\n")
    assert last_words(run.log) == ""
    run.log.write_text("bimamba: error\ninterrupted\n")
    assert last_words(run.log) == ""


def test_a_run_in_use_is_running(run: PlannedRun) -> None:
    leave(run, "running")
    assert not in_use(run.directory)
    claim_run_directory(run.directory)
    assert look(run).state == "running"
    release_run_directories()
    assert look(run).state == "cut"


def test_only_what_decides_results_makes_a_run_foreign(run: PlannedRun) -> None:
    leave(run, "finished")
    path = run.directory / "config.yaml"
    path.write_text(yaml.safe_dump({**run.config, "output": "elsewhere"}))
    assert foreign_settings(run, dict) == []
    path.write_text(yaml.safe_dump({**run.config, "trainer": {"max_epochs": 9}}))
    assert foreign_settings(run, dict) == ["trainer.max_epochs: 9 in the run, 4 in the plan"]


def test_an_option_that_is_younger_than_the_run_is_no_difference_at_its_default(
    run: PlannedRun,
) -> None:
    def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
        if "gone" in config:
            raise SuiteError(expected="known keys", found="gone")
        return {**config, "new": config.get("new", 1)}

    run = replace(run, config={**run.config, "new": 1})
    run.directory.mkdir(parents=True)
    path = run.directory / "config.yaml"
    old = {key: value for key, value in run.config.items() if key != "new"}
    path.write_text(yaml.safe_dump(old))
    assert foreign_settings(run, complete) == []
    path.write_text(yaml.safe_dump({**old, "new": 2}))
    assert foreign_settings(run, complete) == ["new: 2 in the run, 1 in the plan"]
    path.write_text(yaml.safe_dump({**run.config, "gone": 3}))
    assert foreign_settings(run, complete) == ["gone: 3 in the run, absent in the plan"]
