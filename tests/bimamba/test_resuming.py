"""--resume through the real command: which checkpoint, folder and metrics, whose settings."""

import csv
import json
from pathlib import Path

import pytest
import torch

from bimamba.cli import run
from bimamba.main import main
from bimamba.resuming import find_checkpoint
from bimamba.run_directory import claim_run_directory, release_run_directories
from tests.demo import TINY


def fit(output: Path, *words: str) -> int:
    return main(["fit", *TINY, "--output", str(output), *words])


def last(output: Path, name: str) -> Path:
    return output / "demo_vision" / name / "checkpoints" / "last.ckpt"


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def rows(output: Path, name: str) -> list[dict[str, str]]:
    with (output / "demo_vision" / name / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of an uninterrupted run of four epochs."""
    output = tmp_path_factory.mktemp("whole")
    assert (
        fit(output, "--run_name", "r", "--trainer.max_epochs", "4", "--seed_everything", "5") == 0
    )
    return output


def cut(output: Path, epochs: int = 2) -> None:
    """A run of four epochs that stopped after some, as if the machine had died."""
    code = fit(
        output, "--run_name", "r", "--trainer.max_epochs", "4", "--seed_everything", "5",
        "--trainer.max_steps", str(3 * epochs),
    )  # fmt: skip
    assert code == 0
    path = output / "demo_vision" / "r" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "running"}))


def test_a_resumed_run_keeps_rows_best_and_folder(tmp_path: Path) -> None:
    cut(tmp_path)
    before = rows(tmp_path, "r")
    summary = json.loads((tmp_path / "demo_vision" / "r" / "summary.json").read_text())
    spent = torch.load(last(tmp_path, "r"), weights_only=True)["callbacks"]["RunSummary"]["seconds"]
    assert fit(tmp_path, "--resume", "auto", "--trainer.max_epochs", "4") == 0
    assert [p.name for p in (tmp_path / "demo_vision").iterdir()] == ["r"]
    after = rows(tmp_path, "r")
    kept = after[: len(before)]
    for one, other in zip(before, kept, strict=True):
        assert {k: v for k, v in one.items() if v} == {k: v for k, v in other.items() if v}
    assert int(after[-1]["step"]) == 11
    assert [int(r["epoch"]) for r in after if r["val/top1"]] == [0, 1, 2, 3]
    again = json.loads((tmp_path / "demo_vision" / "r" / "summary.json").read_text())
    assert again["status"] == "finished"
    assert again["steps"] == 12
    assert again["seconds"] > round(spent, 2) > 0
    assert again["metrics"]["best"]["val/top1"] >= summary["metrics"]["best"]["val/top1"]


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    cut(tmp_path)
    path = tmp_path / "demo_vision" / "r" / "metrics.csv"
    header = path.read_text().splitlines()[0].split(",")
    line = ["7" if name == "step" else "" for name in header]
    path.write_text(path.read_text() + ",".join(line) + "\n" + "9,9")
    assert fit(tmp_path, "--resume", "auto", "--trainer.max_epochs", "3") == 0
    assert [int(r["step"]) for r in rows(tmp_path, "r")].count(7) <= 1
    assert not path.with_suffix(".previous.csv").exists()


def test_a_folder_in_use_is_refused_and_given_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut(tmp_path)
    folder = tmp_path / "demo_vision" / "r"
    claim_run_directory(folder)
    assert fit(tmp_path, "--resume", "auto") == 2
    assert "another process at work" in capfd.readouterr().err
    release_run_directories()
    assert fit(tmp_path, "--resume", "auto") == 0


def test_a_run_that_died_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    cut(tmp_path)
    last(tmp_path, "r").unlink()
    for best in last(tmp_path, "r").parent.glob("best*"):
        best.unlink()
    assert fit(tmp_path, "--resume", "auto", "--run_name", "r") == 0
    assert [int(r["epoch"]) for r in rows(tmp_path, "r") if r["val/top1"]] == [0, 1]
    assert fit(tmp_path, "--run_name", "r") == 2


def test_auto_without_a_run_starts_afresh_and_a_finished_one_is_left_alone(
    whole: Path, tmp_path: Path
) -> None:
    experiment = whole / "demo_vision"
    assert find_checkpoint("auto", tmp_path, None, "fit") is None
    assert find_checkpoint("auto", experiment, None, "fit") is None
    assert find_checkpoint("auto", experiment, "r", "fit") == last(whole, "r")
    assert find_checkpoint("auto", experiment, None, "test") == last(whole, "r")
    assert find_checkpoint("never", experiment, "r", "fit") is None


def test_slurms_checkpoint_wins_where_it_is_newer(whole: Path, tmp_path: Path) -> None:
    import os
    import shutil

    folder = tmp_path / "demo_vision" / "r"
    shutil.copytree(whole / "demo_vision" / "r", folder)
    slurm = folder / "hpc_ckpt_2.ckpt"
    shutil.copy(last(tmp_path, "r"), slurm)
    os.utime(slurm, (2e9, 2e9))
    assert find_checkpoint(str(folder), tmp_path, None, "fit") == slurm
    os.utime(last(tmp_path, "r"), (2.1e9, 2.1e9))
    assert find_checkpoint(str(folder), tmp_path, None, "fit") == last(tmp_path, "r")


def test_validate_takes_the_newest_run_by_itself(whole: Path, tmp_path: Path) -> None:
    words = ["--output", str(whole), "--resume", "auto", "--run_name", "check"]
    assert main(["validate", *TINY, *words]) == 0
    found = json.loads((whole / "demo_vision" / "check" / "summary.json").read_text())
    expected = json.loads((whole / "demo_vision" / "r" / "summary.json").read_text())
    for name in ("val/loss", "val/top1"):
        value = expected["metrics"]["last"][name]
        assert found["metrics"]["last"][name] == pytest.approx(value, abs=1e-5)


def test_the_config_wins_over_restored_settings_and_says_so(tmp_path: Path) -> None:
    cut(tmp_path)
    changed = ["--model.init_args.optimizer.weight_decay", "0.2"]
    changed += ["--model.init_args.optimizer.lr", "0.004", "--trainer.max_epochs", "3"]
    with pytest.warns(UserWarning) as warned:
        cli = run(["fit", *TINY, "--output", str(tmp_path), "--resume", "auto", *changed])
    said = "\n".join(str(w.message) for w in warned)
    assert "decay.weight_decay: 0.05 in the checkpoint, 0.2 in the config" in said
    assert "decay.lr: 0.002 in the checkpoint, 0.004 in the config" in said
    decay, no_decay = cli.trainer.optimizers[0].param_groups
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.2, 0.0)
    assert decay["initial_lr"] == 0.004


def test_both_ways_to_name_a_checkpoint_at_once_are_refused(
    whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(last(whole, "r"))
    assert fit(whole, "--resume", path, "--ckpt_path", path) == 2
    assert "leave one out" in capfd.readouterr().err


@pytest.mark.parametrize("resume", ["nowhere", "."])
def test_a_resume_path_without_checkpoint_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], resume: str
) -> None:
    assert fit(tmp_path, "--resume", resume) == 2
    assert f"--resume {resume}" in capfd.readouterr().err


def test_a_named_file_and_another_run_name_branch_off(whole: Path, tmp_path: Path) -> None:
    words = ["--resume", str(last(whole, "r")), "--run_name", "branch", "--trainer.max_epochs", "5"]
    assert fit(whole, *words) == 0
    assert torch.load(last(whole, "branch"), weights_only=True)["global_step"] == 15
    assert torch.load(last(whole, "r"), weights_only=True)["global_step"] == 12
