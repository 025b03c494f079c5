"""Planted faults: the preflight names each one and its cure, and leaves nothing behind."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from bimamba.check import STEPS
from bimamba.findings import Finding
from bimamba.main import main
from lightning_modules.vision import VisionMamba
from tests.conftest import ROOT
from tests.demo import NETWORK, TINY

WORDS = (*TINY, "--trainer.max_epochs", "4")
ROOT_KEY = "--data.init_args.root"
PRETRAINED = "--model.init_args.pretrained"

FAULTY_NETWORKS = """
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, 10)

    def forward(self, images):
        return self.head(images.flatten(1))


class NotInitialised(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((2,), float("nan")))


class Huge(Linear):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.head.bias, 5e3)


class Forgotten(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


class Overflow(Linear):
    def forward(self, images):
        return super().forward(images) / 0


class Explosion(Linear):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.head.weight, 1e38)


class Cusp(Linear):
    def forward(self, images):
        return super().forward(images) + (0 * self.head.bias).norm() ** 0.5


class Frozen(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)
"""


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs the verb in an empty folder and returns its status and words; no file may stay."""
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def call(*words: str) -> tuple[int, str]:
        status = main(["check", *WORDS, *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert not list(work.iterdir())
        assert not list(scratch.glob("*bimamba*"))
        return status, out

    return call


@pytest.fixture
def broken(check: Callable[..., tuple[int, str]]) -> Callable[..., str]:
    """Runs the verb, expects `step` and no other to fail, and returns the report."""

    def call(step: str, *words: str) -> str:
        status, said = check(*words)
        assert status == 1, said
        assert [line for line in said.splitlines() if line.startswith("✗")] == [
            f"✗ {step:<16} failed"
        ], said
        assert all(part in said for part in ("expected: ", "found: ", "where: ", "cure: ")), said
        blamed = [line for line in said.splitlines() if line.startswith("–")]
        assert all(line.endswith(f"skipped: it builds on {step}") for line in blamed), said
        passed = len(STEPS) - 1 - len(blamed)
        assert f"\n{passed}/{len(STEPS)} passed" in said, said
        return said

    return call


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of two images in both splits."""
    root = tmp_path / "images"
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        (root / folder).mkdir(parents=True)
        for name in ("1.png", "2.png"):
            Image.new("RGB", (16, 16), (90, 90, 90)).save(root / folder / name)
    return root


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Words that take a network of `FAULTY_NETWORKS`, from a module of the user's own."""
    (tmp_path / "my_networks.py").write_text(FAULTY_NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)

    def words(name: str) -> list[str]:
        network = f"{{class_path: my_networks.{name}, init_args: {{}}}}"
        (tmp_path / "my.yaml").write_text(f"model: {{init_args: {{network: {network}}}}}")
        return ["--config", str(tmp_path / "my.yaml")]

    return words


def test_a_good_configuration_passes_all_steps(check: Callable[..., tuple[int, str]]) -> None:
    status, said = check()
    assert status == 0, said
    assert said.endswith(f"\n{len(STEPS)}/{len(STEPS)} passed\n"), said
    assert "train 1442 samples in 45 batches, val 355 samples in 3 batches, 10 classes" in said
    assert "image (32, 3, 16, 16) float32" in said


def test_ema_precision_several_processes_and_other_callbacks_pass_on_one_device(
    check: Callable[..., tuple[int, str]],
) -> None:
    status, said = check(
        *("--trainer.devices", "2", "--trainer.strategy", "ddp"),
        *("--trainer.precision", "bf16-mixed", "--trainer.accumulate_grad_batches", "3"),
        *("--trainer.callbacks+=EMA", "--trainer.callbacks+=LearningRateMonitor"),
        *("--model.init_args.optimizer.lr_scale_batch", "96"),
    )
    assert status == 0, said
    assert "2 x cpu, precision bf16-mixed" in said
    assert "adamw, 0.004 = 0.002 x 192 / 96, 192 samples a step" in said


def test_a_missing_data_root_shows_the_tree(broken: Callable[..., str], tmp_path: Path) -> None:
    said = broken("data", ROOT_KEY, str(tmp_path / "nowhere"))
    assert "root/train/<class>" in said
    assert "found: no such folder" in said
    assert "cure: point data.init_args.root" in said


def test_an_empty_class_is_named(broken: Callable[..., str], images: Path) -> None:
    (images / "train" / "c").mkdir()
    (images / "val" / "c").mkdir()
    said = broken("data", ROOT_KEY, str(images))
    assert f"found: no image in {images / 'train' / 'c'}" in said
    assert "or remove the empty folder" in said


def test_an_unreadable_image_is_found_by_reading(broken: Callable[..., str], images: Path) -> None:
    bad = images / "val" / "b" / "2.png"
    bad.write_bytes(bad.read_bytes()[:40])
    words = (ROOT_KEY, str(images), f"{NETWORK}.num_classes", "2")
    said = broken("samples", *words, "--data.init_args.batch_size", "2")
    assert f"where: {bad}" in said
    assert "cure: copy or download the file again" in said


def test_what_the_data_set_doubts_is_a_warning(
    check: Callable[..., tuple[int, str]], images: Path
) -> None:
    shutil.rmtree(images / "val" / "b")
    words = (ROOT_KEY, str(images), f"{NETWORK}.num_classes", "2")
    relaxed = ("--data.init_args.strict_classes", "false", "--data.init_args.batch_size", "2")
    status, said = check(*words, *relaxed)
    assert status == 0, said
    assert "val: none of b; cure: add images" in said


def test_a_wrong_class_count_names_the_right_one(broken: Callable[..., str]) -> None:
    said = broken("data and network", f"{NETWORK}.num_classes", "7")
    assert "found: num_classes 7 in the network" in said
    assert "cure: set it to 10" in said


def test_a_wrong_image_size_names_the_right_one(broken: Callable[..., str]) -> None:
    said = broken("data and network", f"{NETWORK}.img_size", "24")
    assert "found: img_size (24, 24) in the network" in said
    assert "cure: set it to [16, 16]" in said


def test_a_learning_rate_below_its_minimum_is_refused(broken: Callable[..., str]) -> None:
    said = broken("learning rate", "--model.init_args.optimizer.lr", "1e-6")
    assert "found: 1e-06 after scaling by the batch, so the cosine would rise" in said
    assert "cure: raise lr" in said


def test_a_nearly_flat_cosine_and_a_short_run_are_warnings(
    check: Callable[..., tuple[int, str]],
) -> None:
    rate = ("--model.init_args.optimizer.lr", "1.5e-5")
    status, said = check(*rate, "--trainer.max_epochs", "1")
    assert status == 0
    assert "is nearly flat" in said
    assert "ends within its warm-up of 2" in said
    assert said.endswith("passed, 2 to look at\n")


def test_an_optimiser_that_does_not_exist_is_named(broken: Callable[..., str]) -> None:
    said = broken("learning rate", "--model.init_args.optimizer.name", "adamww")
    assert "found: adamww" in said
    assert "cure: use adamw" in said


def test_a_parameter_that_is_nan_from_the_start_is_named(
    broken: Callable[..., str], faulty: Callable[[str], list[str]]
) -> None:
    said = broken("network", *faulty("NotInitialised"))
    assert "found: NaN or infinity in network.scale (1 of 3)" in said
    assert "cure: mend the initialisation of this parameter" in said


def test_huge_initial_values_are_a_warning(
    check: Callable[..., tuple[int, str]], faulty: Callable[[str], list[str]]
) -> None:
    status, said = check(*faulty("Huge"))
    assert status == 0
    assert "network.head.bias starts with values up to 5e+03" in said


def test_a_network_without_anything_to_train_is_refused(
    broken: Callable[..., str], faulty: Callable[[str], list[str]]
) -> None:
    assert "7,690 parameters, all frozen" in broken("network", *faulty("Frozen"))


def test_parameters_without_a_gradient_are_named(
    broken: Callable[..., str], faulty: Callable[[str], list[str]]
) -> None:
    said = broken("training batch", *faulty("Forgotten"))
    assert "found: none for network.unused.weight, network.unused.bias" in said
    assert "cure: let forward use it, remove it, or freeze it" in said


def test_a_loss_that_is_not_finite_is_refused(
    broken: Callable[..., str], faulty: Callable[[str], list[str]]
) -> None:
    said = broken("training batch", *faulty("Overflow"))
    assert "expected: a finite loss" in said
    assert "found: nan" in said
    assert "--trainer.detect_anomaly true" in said


def test_a_layer_that_makes_the_loss_infinite_is_named(
    broken: Callable[..., str], faulty: Callable[[str], list[str]]
) -> None:
    said = broken("training batch", *faulty("Explosion"))
    assert "found: nan, from layer network.head" in said


def test_a_gradient_that_is_not_finite_is_named(
    broken: Callable[..., str], faulty: Callable[[str], list[str]]
) -> None:
    said = broken("training batch", *faulty("Cusp"))
    assert "found: NaN or infinity for network.head.bias" in said
    assert "sqrt and norm have no gradient at 0" in said


def test_an_output_folder_that_cannot_be_made_is_named(
    broken: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    said = broken("output", "--output", str(tmp_path / "file" / "runs"))
    assert f"found: {tmp_path / 'file'} is a file" in said
    assert "cure: set --output to a folder you may write to" in said


def test_a_disk_too_small_for_the_checkpoints_is_noticed(
    broken: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bimamba.preflight.configuration.free_space", lambda _: 100_000)
    said = broken("output")
    assert "found: 100.0 kB free" in said
    assert "lower --save_top_k" in said


def test_a_run_name_that_is_taken_is_refused(broken: Callable[..., str], tmp_path: Path) -> None:
    taken = tmp_path / "runs" / "demo_vision" / "mine"
    taken.mkdir(parents=True)
    (taken / "summary.json").write_text("precious")
    said = broken("configuration", "--output", str(tmp_path / "runs"), "--run_name", "mine")
    assert "choose another --run_name" in said


def test_a_damaged_pretrained_file_is_named(broken: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "half.pth"
    torch.save({"model": {"a": torch.zeros(1000)}}, file)
    file.write_bytes(file.read_bytes()[:900])
    said = broken("initial weights", PRETRAINED, str(file))
    assert "cut short" in said
    assert f"where: {file}" in said
    assert "cure: copy or download the file again" in said


def test_pretrained_weights_of_another_model_are_refused(
    broken: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "other.pth"
    network = VisionMamba(img_size=16, patch_size=8, stride=4, dim=24, depth=1, num_classes=10)
    torch.save({"model": network.state_dict()}, file)
    said = broken("initial weights", PRETRAINED, str(file))
    assert "in the file, (1, 1, 16) in the model" in said
    assert "cure: build the network the weights were trained with" in said


def test_a_checkpoint_to_go_on_from_is_read_and_compared(
    broken: Callable[..., str], check: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    words = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    assert main(["fit", *WORDS, *words, "--output", str(tmp_path), "--run_name", "x"]) == 0
    file = tmp_path / "last.ckpt"
    shutil.move(tmp_path / "demo_vision" / "x" / "checkpoints" / "last.ckpt", file)
    status, said = check("--ckpt_path", str(file))
    assert status == 0
    assert f"goes on from {file}" in said
    said = broken("initial weights", "--ckpt_path", str(file), f"{NETWORK}.dim", "24")
    assert f"where: {file}" in said
    assert "cure: use the config.yaml beside the checkpoint" in said


def test_a_mistyped_key_names_the_nearest(broken: Callable[..., str]) -> None:
    said = broken("configuration", "--trainer.max_epoch", "3")
    assert "unrecognized arguments: --trainer.max_epoch 3" in said
    assert "cure: did you mean trainer.max_epochs?" in said


def test_a_device_that_is_not_there_is_named(broken: Callable[..., str]) -> None:
    said = broken("configuration", "--trainer.accelerator", "cuda", "--trainer.devices", "99")
    assert "expected: a trainer that this machine can run" in said
    assert "bimamba doctor lists the devices" in said


def test_an_odd_batch_cannot_be_mixed(broken: Callable[..., str]) -> None:
    mixing = ("--model.init_args.mixing.mixup", "0.8")
    said = broken("training batch", *mixing, "--data.init_args.batch_size", "33")
    assert "found: 33 images" in said
    assert "cure: choose an even batch_size" in said


def test_a_metric_that_nobody_logs_is_found_in_validation(broken: Callable[..., str]) -> None:
    stopping = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/top11")
    said = broken("validation", *stopping)
    assert "val/top11` which is not available" in said
    assert "`val/top1`" in said


def test_several_independent_faults_are_found_in_one_call(
    check: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    status, said = check(
        *("--output", str(tmp_path / "file")),
        *(f"{NETWORK}.num_classes", "7", "--model.init_args.optimizer.lr", "1e-6"),
    )
    assert status == 1
    failed = [
        line.removeprefix("✗ ").removesuffix("failed").strip()
        for line in said.splitlines()
        if line.startswith("✗")
    ]
    assert failed == ["output", "data and network", "learning rate"]


def test_a_broken_environment_skips_everything_else(
    broken: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = Finding("torch pair", "undefined symbol", "broken", "install a pair")
    monkeypatch.setattr("bimamba.preflight.environment.inspect_environment", lambda: [finding])
    said = broken("environment")
    assert "found: torch pair: undefined symbol" in said
    assert "cure: install a pair" in said
    assert f"0/{len(STEPS)} passed" in said


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *WORDS, "--debug", ROOT_KEY, "/nowhere"]) == 1
    assert "Traceback" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted((ROOT / "configs" / "demo").glob("*.yaml")), ids=str)
def test_the_demo_of_each_wing_passes(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["check", "--config", str(config), "--output", str(tmp_path / "runs")])
    assert status == 0, capsys.readouterr().out
    assert not list(tmp_path.iterdir())
