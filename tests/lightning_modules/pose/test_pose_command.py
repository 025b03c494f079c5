"""From training to the poses of one's own video by the command, and on to a stream."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bimamba.main import main
from datamodules.pose.h36m_pickle import FILE_NAME
from lightning_modules.pose import HybridLifter, PoseLifting, StreamingLifter
from tests.conftest import ROOT

CONFIG = ["--config", str(ROOT / "configs" / "demo" / "pose.yaml")]
NETWORK = "--model.init_args.network.init_args"
SMALL = [
    *(f"{NETWORK}.depth", "1", f"{NETWORK}.dim", "8", f"{NETWORK}.d_inner", "16"),
    *(f"{NETWORK}.dim_rep", "8", f"{NETWORK}.causal", "true"),
    *("--model.init_args.flip_test", "false", "--data.init_args.num_frames", "9"),
]
SIZE = (640, 480)


@pytest.fixture
def output(tmp_path: Path, golden: Path) -> Path:
    """Runs, beside a tiny Human3.6M and the joints of two people."""
    (tmp_path / "h36m").mkdir()
    shutil.copy(golden / "pose" / "h36m_tiny.pkl", tmp_path / "h36m" / FILE_NAME)
    joints = np.random.RandomState(0).rand(2, 14, 17, 3) * (*SIZE, 1)
    np.savez(tmp_path / "pair.npz", keypoints=joints)
    return tmp_path


def trained(output: Path) -> Path:
    """Checkpoint of a short training."""
    data = ["--data.init_args.root", str(output / "h36m"), "--data.init_args.batch_size", "4"]
    where = ["--output", str(output / "runs"), "--run_name", "fit"]
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    short += ["--trainer.check_val_every_n_epoch", "1"]
    assert main(["fit", *CONFIG, *SMALL, *data, *where, *short]) in (0, None)
    run = output / "runs" / "demo_pose" / "fit"
    assert (run / "pictures" / "val_poses.png").is_file()
    assert (run / "per_action.csv").is_file()
    last = run / "checkpoints" / "last.ckpt"
    words = [*CONFIG, *SMALL, *data, *where[:2], "--run_name", "test", "--ckpt_path", str(last)]
    assert main(["test", *words]) in (0, None)
    (page,) = (output / "runs").glob("demo_pose/test*/poses/test.html")
    assert page.with_name("test.html").stat().st_size > 5000
    return last


def predict_words(output: Path, checkpoint: Path, name: str) -> list[str]:
    own = ["--data.class_path", "KeypointsDataModule", "--data.init_args.joints", "h36m"]
    own += ["--data.init_args.root", str(output / "pair.npz")]
    own += ["--data.init_args.size", str(list(SIZE)), "--data.init_args.num_frames", "9"]
    where = ["--output", str(output / "runs"), "--run_name", name, "--ckpt_path", str(checkpoint)]
    return ["predict", *CONFIG, *SMALL[:-2], *own, *where]


def predicted(output: Path, name: str, video: str) -> np.ndarray:
    (path,) = (output / "runs").glob(f"demo_pose/{name}*/poses/{video}.npz")
    with np.load(path) as archive:
        assert json.loads(str(archive["metadata"]))["unit"] == "half image widths"
        poses: np.ndarray = archive["poses"]
    return poses


def test_fit_test_predict_and_stream(output: Path) -> None:
    checkpoint = trained(output)
    assert main(predict_words(output, checkpoint, "own")) in (0, None)
    (folder,) = (output / "runs").glob("demo_pose/own*/poses")
    expected = {f"pair_{n}.{kind}" for n in (0, 1) for kind in ("npz", "html", "gif")}
    assert {path.name for path in folder.iterdir()} == {*expected, "all_together.html"}
    # The first frames, which one window alone has seen, as a stream.
    module = PoseLifting.load_from_checkpoint(checkpoint)
    assert isinstance(module.network, HybridLifter)
    lifter = StreamingLifter(module.network, SIZE)
    with np.load(output / "pair.npz") as archive:
        joints = torch.from_numpy(archive["keypoints"][0]).float()
    found = torch.stack([lifter(frame) for frame in joints[:4]])
    poses = predicted(output, "own", "pair_0")
    torch.testing.assert_close(found, torch.from_numpy(poses[:4]), rtol=0, atol=1e-5)


def test_poses_of_an_untrained_network_come_with_a_warning(output: Path) -> None:
    words = predict_words(output, Path("none"), "raw")
    place = words.index("--ckpt_path")
    with pytest.warns(UserWarning, match="an untrained one"):
        assert main(words[:place] + words[place + 2 :]) in (0, None)


XS = ["--config", str(ROOT / "configs" / "pose" / "mamba_gcn_xs.yaml")]
FLAGS = {
    "baseline": ["--model.init_args.network", "MotionAGFormer"],
    "mamba_gcn": [f"{NETWORK}.mamba_gcn_layers", "1", f"{NETWORK}.mamba_gcn_dim", "16"],
    "full": [f"{NETWORK}.mamba_gcn_layers", "1", f"{NETWORK}.placement", "inside"],
    "hybrid": ["--model.init_args.network", "HybridLifter", f"{NETWORK}.d_inner", "16"],
}
TINY = [*(f"{NETWORK}.depth", "1", f"{NETWORK}.dim", "8", f"{NETWORK}.dim_rep", "8")]


def words_of_xs(output: Path, kind: str, *more: str, frames: int = 9) -> list[str]:
    """The XS configuration with another network, very small, on the tiny Human3.6M."""
    words = [*XS, *FLAGS[kind], *TINY, "--data.init_args.root", str(output / "h36m")]
    words += ["--data.init_args.num_frames", str(frames), "--data.init_args.num_workers", "0"]
    words += [] if kind == "hybrid" else [f"{NETWORK}.num_frames", str(frames)]
    return [*words, "--trainer.accelerator", "cpu", "--output", str(output / "runs"), *more]


@pytest.mark.parametrize("kind", FLAGS)
def test_one_configuration_trains_every_kind_of_network(output: Path, kind: str) -> None:
    assert main(["fit", *words_of_xs(output, kind, "--trainer.fast_dev_run", "true")]) in (0, None)


def test_a_checkpoint_of_another_size_or_length_is_refused_and_can_be_trained_on(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    short += ["--trainer.limit_val_batches", "1"]
    words = words_of_xs(output, "mamba_gcn", *short, "--experiment", "e", "--run_name", "first")
    assert main(["fit", *words]) in (0, None)
    last = str(output / "runs" / "e" / "first" / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    for changed, part in (
        (words_of_xs(output, "mamba_gcn", f"{NETWORK}.dim", "16"), "(1, 17, 8) in the file"),
        (words_of_xs(output, "mamba_gcn", frames=12), "(9,) in the file, (12,) in the model"),
    ):
        assert main(["validate", *changed, "--ckpt_path", last]) == 2
        error = capsys.readouterr().err
        assert part in error and "Traceback" not in error, error
    # Another rate, from the weights of before.
    words = words_of_xs(output, "mamba_gcn", *short, "--experiment", "e", "--run_name", "tuned")
    tuning = ["--model.init_args.pretrained", last, "--model.init_args.optimizer.lr", "1e-12"]
    assert main(["fit", *words, *tuning]) in (0, None)
    before, after = (
        torch.load(output / "runs" / "e" / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("first", "tuned")
    )
    weights = [k for k in before["state_dict"] if k.endswith("joints_embed.weight")]
    assert weights
    for key in weights:
        torch.testing.assert_close(after["state_dict"][key], before["state_dict"][key])


@pytest.mark.slow
def test_two_processes_score_as_one_does(output: Path) -> None:
    """P1 and all other scores, per action and in all, to 1e-6 mm."""
    checkpoint = trained(output)
    words = ["validate", *CONFIG, *SMALL, "--data.init_args.root", str(output / "h36m")]
    # One clip at a time: the size of a batch may change the last bit of a product.
    words += ["--data.init_args.val_batch_size", "1", "--output", str(output / "runs")]
    words += ["--ckpt_path", str(checkpoint), "--run_name"]
    assert main([*words, "one"]) in (0, None)
    in_processes([*words, "two", "--trainer.strategy", "ddp", "--trainer.devices", "2"])
    tables = []
    for name in ("one", "two"):
        (path,) = (output / "runs").glob(f"demo_pose/{name}*/per_action.csv")
        with path.open(newline="") as file:
            head, *rows = csv.reader(file)
        assert "p1" in head and len(rows) > 2
        tables.append(np.array([[float(x or "nan") for x in row[1:]] for row in rows]))
    assert np.isfinite(tables[0]).any()
    np.testing.assert_allclose(tables[1], tables[0], rtol=0, atol=1.01e-6)


def in_processes(words: list[str]) -> None:
    """The command as a user gives it: processes cannot be started from within a test."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("PL_GLOBAL_SEED", "BIMAMBA_RUN_DIRECTORY", "LOCAL_RANK"):
        environment.pop(name, None)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "bimamba"), *words],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_write_what_one_does(output: Path) -> None:
    checkpoint = trained(output)
    assert main(predict_words(output, checkpoint, "one")) in (0, None)
    words = predict_words(output, checkpoint, "two")
    words += ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    in_processes(words)
    for video in ("pair_0", "pair_1"):
        one, two = (predicted(output, name, video) for name in ("one", "two"))
        np.testing.assert_allclose(two, one, atol=1e-6)
