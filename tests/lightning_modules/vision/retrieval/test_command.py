"""The demo through the real command: trained, resumed, tested and asked for features."""

import json
from pathlib import Path

import numpy as np
import pytest

from bimamba.main import main
from tests.conftest import ROOT

DEMO = ("--config", str(ROOT / "configs" / "demo" / "retrieval.yaml"))
NETWORK = "--model.init_args.network.init_args"
TINY = (
    *DEMO,
    *(f"{NETWORK}.depth", "1", f"{NETWORK}.dim", "16", f"{NETWORK}.d_state", "2"),
    *("--trainer.limit_train_batches", "3", "--trainer.max_epochs", "1"),
    *("--trainer.check_val_every_n_epoch", "1", "--data.init_args.val_batch_size", "256"),
)


def test_the_demo_trains_tests_and_predicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("--output", str(tmp_path))
    assert main(["fit", *TINY, *output, "--run_name", "fit"]) == 0, capsys.readouterr().err
    run = tmp_path / "demo_retrieval" / "fit"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["monitor"] == "val/mAP" and summary["metrics"]["best"]["val/mAP"] > 0
    assert "cmc_camera" in summary["protocol"]
    assert (run / "pictures" / "val_ranked.png").is_file()
    checkpoint = ("--ckpt_path", str(run / "checkpoints" / "last.ckpt"))
    assert main(["predict", *TINY, *output, *checkpoint, "--run_name", "features"]) == 0
    with np.load(tmp_path / "demo_retrieval" / "features" / "features.npz") as found:
        assert found["features"].shape[1] == 16
        assert len(found["features"]) == len(set(found["path"].tolist())) > 100


def test_the_wrong_protocol_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", *TINY, "--output", str(tmp_path), "--model.init_args.protocol", "trapezoid"]
    assert main(words) != 0
    assert "set it to cmc_camera" in capsys.readouterr().err
