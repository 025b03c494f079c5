"""fit, validate, test and predict through the real command, on the embedded digits."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from bimamba.cli import run
from bimamba.main import main
from tests.demo import TINY


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a short fit."""
    output = tmp_path_factory.mktemp("runs")
    assert main(["fit", *TINY, "--output", str(output), "--run_name", "first"]) == 0
    return output / "demo_vision" / "first"


@pytest.fixture
def verb(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs a verb on the trained checkpoint; returns its run directory."""

    def call(name: str, *words: str, config: str = "config.yaml", expect: int = 0) -> Path:
        checkpoint = str(trained / "checkpoints" / "last.ckpt")
        given = ["--config", str(trained / config), "--ckpt_path", checkpoint]
        status = main([name, *given, "--output", str(tmp_path), "--run_name", name, *words])
        assert status == expect
        return tmp_path / "demo_vision" / name

    return call


def test_fit_leaves_a_complete_run_directory(trained: Path) -> None:
    files = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert {"config.yaml", "metrics.csv", "summary.json", "checkpoints/last.ckpt"} <= files
    assert {"pictures/val_grid.png", "pictures/val_confusion.png"} <= files
    assert sum("best-" in name for name in files) == 1
    assert not [name for name in files if Path(name).name.startswith(".")]
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["steps"] == 6
    assert summary["metrics"]["last"]["val/top1"] >= 0
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"epoch", "step", "train/loss", "val/loss", "val/top1", "val/top5"} <= rows[0].keys()
    with Image.open(trained / "pictures" / "val_grid.png") as picture:
        assert picture.width > 300


def test_saved_config_repeats_the_run_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["experiment"] == "demo_vision"
    words = ["--config", str(trained / "config.yaml"), "--output", str(tmp_path)]
    assert main(["fit", *words, "--run_name", "again"]) == 0
    states = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (trained, tmp_path / "demo_vision" / "again")
    ]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_workers_do_not_change_the_samples(trained: Path, tmp_path: Path) -> None:
    words = [
        *TINY,
        "--output",
        str(tmp_path),
        "--run_name",
        "w",
        "--data.init_args.num_workers",
        "2",
    ]
    assert main(["fit", *words]) == 0
    one, two = (
        json.loads((folder / "summary.json").read_text())["metrics"]["last"]
        for folder in (trained, tmp_path / "demo_vision" / "w")
    )
    assert one == two


def test_validate_repeats_the_metrics_of_the_last_epoch(
    trained: Path, verb: Callable[..., Path]
) -> None:
    folder = verb("validate")
    first = json.loads((trained / "summary.json").read_text())["metrics"]["last"]
    again = json.loads((folder / "summary.json").read_text())["metrics"]["last"]
    for name in ("val/loss", "val/top1", "val/top5"):
        assert again[name] == pytest.approx(first[name], abs=1e-5)
    assert (folder / "pictures" / "val_grid.png").is_file()


def test_test_writes_every_prediction_once(verb: Callable[..., Path]) -> None:
    folder = verb("test")
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(355))
    right = sum(row["label"] == row["prediction"] for row in rows)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["last"]["test/top1"] == pytest.approx(100 * right / 355, abs=1e-3)
    assert summary["metrics"]["best"] == {}  # The training's best is no result of the test.
    assert (folder / "pictures" / "test_confusion.png").is_file()


def test_predict_names_classes_of_a_plain_folder(verb: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "inner/c.webp"):
        Image.new("L", (20, 30), 128).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    run_directory = verb("predict", "--data.init_args.predict_root", str(folder))
    with (run_directory / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        assert row["label"] == ""
        assert row["prediction"] in set("0123456789")
        assert 0.1 <= float(row["probability"]) <= 1


def test_config_wins_over_the_checkpoint_and_the_difference_is_shown(
    verb: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match=r"optimizer.lr: 0.002 in the checkpoint, 0.5 in the con"):
        verb("validate", "--model.init_args.optimizer.lr", "0.5")


def test_precision_accumulation_clipping_ema_and_early_stopping_work_together(
    tmp_path: Path,
) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text(
        """
trainer:
  precision: bf16-mixed
  accumulate_grad_batches: 2
  gradient_clip_val: 1.0
  max_epochs: 4
  callbacks:
    - class_path: EarlyStopping
      init_args: {monitor: val/top1, mode: max, patience: 0, min_delta: 100}
    - class_path: EMA
      init_args: {decay: 0.9}
"""
    )
    cli = run(["fit", *TINY, "--config", str(extra), "--output", str(tmp_path), "--run_name", "x"])
    assert cli.trainer.current_epoch == 2  # stopped after the first epoch without a gain
    assert cli.trainer.global_step == 2 * 2
    checkpoint = torch.load(
        tmp_path / "demo_vision" / "x" / "checkpoints" / "last.ckpt", weights_only=True
    )
    assert "current_model_state" in checkpoint
    assert next(iter(checkpoint["state_dict"].values())).dtype == torch.float32


def test_a_profile_lies_in_the_run_directory_when_asked_for(tmp_path: Path) -> None:
    profiler = tmp_path / "profiler.yaml"
    profiler.write_text(
        "trainer:\n  profiler:\n    class_path: SimpleProfiler\n    init_args:\n"
        f"      dirpath: {tmp_path}\n      filename: profile\n"
    )
    words = ["--config", str(profiler), "--output", str(tmp_path), "--run_name", "p"]
    assert main(["fit", *TINY, *words]) == 0
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()


def test_print_config_round_trips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *TINY, "--print_config"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(printed)
    assert main(["fit", "--config", str(tmp_path / "printed.yaml"), "--print_config"]) == 0
    assert capsys.readouterr().out == printed


def test_python_reloads_what_the_command_trained(trained: Path) -> None:
    from lightning_modules.vision import ImageClassification

    path = trained / "checkpoints" / "last.ckpt"
    module = ImageClassification.load_from_checkpoint(path, map_location="cpu")
    assert module.network.init_call["init_args"]["dim"] == 16
    assert module.info["class_names"] == [str(digit) for digit in range(10)]
    assert module.eval()(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_logger_false_and_no_checkpointing_leave_the_least(tmp_path: Path) -> None:
    words = ["--trainer.logger", "false", "--trainer.enable_checkpointing", "false"]
    assert main(["fit", *TINY, *words, "--output", str(tmp_path), "--run_name", "bare"]) == 0
    folder = tmp_path / "demo_vision" / "bare"
    files = {"config.yaml", "config_changes.yaml", "page.html", "pictures"}
    files |= {"network.json", "summary.json"}
    assert {p.name for p in folder.iterdir()} == files


def test_fast_dev_run_leaves_nothing(tmp_path: Path) -> None:
    words = ["--trainer.fast_dev_run", "true", "--output", str(tmp_path / "runs")]
    assert main(["fit", *TINY, *words]) == 0
    assert not (tmp_path / "runs").exists()
