"""Loggers through the real command: what they wrote is read back from their own files."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bimamba.cli import run
from bimamba.loggers import build_logger
from bimamba.main import main
from tests.conftest import ROOT
from tests.demo import TINY

PERFORMANCE = {"perf/samples_per_second", "perf/peak_memory"}
PARTS = {"model", "data", "trainer", "seed_everything"}


def fragment(name: str) -> tuple[str, str]:
    return "--config", str(ROOT / "configs" / "logger" / f"{name}.yaml")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a short fit with W&B and TensorBoard beside metrics.csv."""
    output = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "CONFIG", "DATA"):  # W&B's own folders, else below the home folder.
            patch.setenv(f"WANDB_{name}_DIR", str(output / name.lower()))
        patch.setenv("WANDB_SILENT", "true")
        words = [*TINY, *fragment("wandb"), *fragment("tensorboard")]
        words += ["--trainer.log_every_n_steps", "1"]
        assert main(["fit", *words, "--output", str(output), "--run_name", "first"]) == 0
    return output / "demo_vision" / "first"


@pytest.fixture(scope="module")
def records(logged: Path) -> list[Any]:
    """Everything in the W&B run's own file."""
    return list(read_wandb(next(logged.glob("wandb/offline-run-*/*.wandb"))))


@pytest.fixture(scope="module")
def events(logged: Path) -> Any:
    """Everything in TensorBoard's file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(logged / "tensorboard")).Reload()


def read_wandb(path: Path) -> Iterator[Any]:
    """Records of a `.wandb` file: protocol buffers in LevelDB's log format behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:  # Too small for the head of a piece: padding up to the next block.
            place += room
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # A whole record, or the last piece of one.
            yield Record.FromString(whole)
            whole = b""


def history(records: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for record in records:
        if record.HasField("history"):
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def test_wandb_knows_the_whole_configuration_and_where_the_run_belongs(
    records: list[Any], logged: Path
) -> None:
    config = {
        update.key: json.loads(update.value_json)
        for record in records
        if record.HasField("config")
        for update in record.config.update
    }
    assert config.keys() == PARTS
    saved = yaml.safe_load((logged / "config.yaml").read_text())
    assert config == {name: saved[name] for name in PARTS}
    start = next(record.run for record in records if record.HasField("run"))
    assert (start.project, start.run_group, start.display_name) == (
        *("bimamba", "demo_vision"),
        "first",
    )


def test_wandb_has_the_history_of_metrics_csv(records: list[Any], logged: Path) -> None:
    rows = history(records)
    with (logged / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    for name in ("train/loss", "train/loss_step", "val/top1", "lr/decay", *PERFORMANCE):
        ours = [(int(row["step"]), float(row[name])) for row in table if row.get(name)]
        theirs = [(row["trainer/global_step"], row[name]) for row in rows if name in row]
        assert len(ours) >= 2
        assert theirs == ours, name


def test_wandb_has_the_pictures_and_the_best_checkpoint(records: list[Any], logged: Path) -> None:
    names = [
        name
        for row in history(records)
        for key in ("val/grid/filenames", "val/confusion/filenames")
        for name in row.get(key, ())
    ]
    assert len(names) == 2
    for name in names:
        assert next(logged.glob(f"wandb/offline-run-*/files/{name}")).stat().st_size > 1000
    artifact = next(record.artifact for record in records if record.HasField("artifact"))
    assert artifact.type == "model"
    assert "best" in artifact.aliases
    (entry,) = artifact.manifest.contents
    assert Path(entry.local_path) == next(logged.glob("checkpoints/best-*.ckpt"))
    best = json.loads((logged / "summary.json").read_text())["metrics"]["best"]
    assert json.loads(artifact.metadata) == {"val/top1": pytest.approx(best["val/top1"])}


def test_wandb_ends_with_the_run_and_leaves_none_open(records: list[Any]) -> None:
    import wandb

    assert wandb.run is None
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def test_tensorboard_has_metrics_pictures_and_configuration(events: Any, logged: Path) -> None:
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "val/loss", "val/top1", "lr/decay", *PERFORMANCE} <= scalars
    assert "hp_metric" not in scalars
    assert len(events.Scalars("val/top1")) == 2
    assert set(events.Tags()["images"]) == {"val/grid", "val/confusion"}
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert (logged / "config.yaml").read_text().strip() in text


def test_tensorboard_compares_runs_by_options_and_best_score(events: Any, logged: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = {
        name: HParamsPluginData.FromString(content.plugin_data.content)
        for name, content in events.summary_metadata.items()
        if name.startswith("_hparams_")
    }
    options = found["_hparams_/session_start_info"].session_start_info.hparams
    assert options["model/init_args/network/init_args/depth"].number_value == 1
    best = json.loads((logged / "summary.json").read_text())["metrics"]["best"]
    assert events.Scalars("best/val/top1")[0].value == pytest.approx(best["val/top1"])


def test_saved_configuration_names_no_folder_of_the_run(logged: Path) -> None:
    loggers = yaml.safe_load((logged / "config.yaml").read_text())["trainer"]["logger"]
    assert [logger["init_args"]["save_dir"] for logger in loggers] == [".", "."]


def test_page_shows_the_cost_of_each_epoch_and_what_differs(logged: Path) -> None:
    text = (logged / "page.html").read_text()
    assert "samples per second" in text
    assert "<h3>peak memory <small>MiB</small></h3>" in text
    assert "What differs from the defaults" in text
    assert len(text) < 1_000_000


def test_changed_options_alone_repeat_the_run(
    logged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for name in ("config.yaml", "config_changes.yaml"):
        assert main(["fit", "--config", str(logged / name), "--print_config"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_csv_fragment_is_the_default_stated(tmp_path: Path) -> None:
    words = [*TINY, *fragment("csv"), "--output", str(tmp_path), "--run_name", "x"]
    cli = run(["fit", *words, "--trainer.max_epochs", "1"])
    assert len(cli.trainer.loggers) == 1
    folder = tmp_path / "demo_vision" / "x"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() >= PERFORMANCE
    assert not (folder / "hparams.yaml").exists()


def test_a_logger_with_a_folder_of_its_own_keeps_it(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    options = {"save_dir": str(tmp_path / "mine")}
    logger = build_logger(CSVLogger, tmp_path / "run", options)
    assert logger.save_dir == str(tmp_path / "mine")


def test_a_resumed_run_keeps_its_wandb_id(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import WandbLogger

    folder = tmp_path / "digits" / "first"
    logger = build_logger(WandbLogger, folder, {"save_dir": ".", "name": None, "version": None})
    assert (logger.version, logger.save_dir) == (None, str(folder))
    (folder / "wandb" / "offline-run-20260101_000000-abc12345").mkdir(parents=True)
    logger = build_logger(WandbLogger, folder, {"save_dir": ".", "name": None, "version": None})
    assert logger.version == "abc12345"
    logger = build_logger(WandbLogger, folder, {"save_dir": ".", "version": "mine"})
    assert logger.version == "mine"
