"""Recipes as a user runs them: learning rates of shipped files, frozen parts, foreign weights."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from bimamba.main import main
from blocks.errors import SuiteError
from datamodules.vision import Augment, ImageNetDataModule
from lightning_modules.optimization import Optimizer, Schedule, check_lr, scaled_lr
from lightning_modules.vision import ImageClassification, Mixing, VisionMamba
from lightning_modules.vision.losses import Distillation
from tests.conftest import ROOT
from tests.demo import NETWORK, TINY

FOLDER = ROOT / "configs" / "vision"
# Words of the flag table that are no key of the model: values, classes, arguments of callbacks.
_OTHERS = {
    "EMA",
    "Freeze",
    "NonFiniteGuard",
    "1",
    "decay",
    "warmup",
    "device",
    "class_token",
    "zero",
    "mode",
}


def rate(name: str, processes: int = 1) -> float:
    """Scaled learning rate of a shipped configuration."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    given = config["model"]["init_args"]
    samples = config["data"]["init_args"]["batch_size"] * processes
    samples *= config["trainer"].get("accumulate_grad_batches", 1)
    known = {key: given["optimizer"][key] for key in ("lr", "lr_scale_batch")}
    lr = scaled_lr(Optimizer(**known), samples)
    check_lr(lr, Schedule(**given["schedule"]))
    return lr


def test_recipes_train_at_the_rates_their_comments_promise(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert rate("vim_tiny", 8) == rate("vim_small", 8) == pytest.approx(1e-3)
    assert rate("vim_tiny_single_gpu") == pytest.approx(1e-3)
    assert rate("vim_tiny_low_memory") == pytest.approx(5e-4)
    assert rate("vim_tiny_384") == pytest.approx(1e-5)
    assert rate("vim_tiny_finetune_folder") == pytest.approx(1.25e-4)
    assert not recwarn.list


def test_small_batches_without_accumulation_are_warned_about_or_refused() -> None:
    optimizer, schedule = Optimizer(lr=1e-4), Schedule()
    with pytest.warns(UserWarning, match="1.25e-05 is within twice min_lr"):
        check_lr(scaled_lr(optimizer, 64), schedule)
    with pytest.raises(SuiteError, match="7.81e-07 after scaling"):
        check_lr(scaled_lr(optimizer, 4), schedule)


def test_the_command_freezes_what_a_callback_names(tmp_path: Path) -> None:
    """The words of vim_tiny_finetune_folder.yaml's comment."""
    freeze = ["--trainer.callbacks+=Freeze", '--trainer.callbacks.patterns=["*"]']
    freeze += ['--trainer.callbacks.keep=["head.*", "norm_f.*"]', "--run_name", "run"]
    assert main(["fit", *TINY, *freeze, "--output", str(tmp_path)]) == 0
    run = tmp_path / "demo_vision" / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["trainable_params"] == 16 * 10 + 10 + 16
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert "head.weight" not in stored["frozen"] and "pos_embed" in stored["frozen"]
    assert "patterns" in (run / "config.yaml").read_text()


def test_pretrained_weights_are_evaluated_at_another_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    small = VisionMamba(img_size=16, patch_size=8, stride=4, dim=16, depth=1, d_state=2,
                        num_classes=10, backward_dt_init="matched")  # fmt: skip
    torch.save({"model": small.state_dict()}, tmp_path / "vim.pth")
    large = ["--data.init_args.img_size", "32", f"{NETWORK}.img_size", "32"]
    words = ["test", *TINY, *large, "--trainer.limit_test_batches", "1"]
    words += ["--output", str(tmp_path), "--run_name"]
    weights = ["--model.init_args.pretrained", str(tmp_path / "vim.pth")]
    assert main([*words, "first", *weights]) == 0, capsys.readouterr().err
    resized = VisionMamba(**{**small.init_call["init_args"], "img_size": 32})
    resized.load_state_dict(resized.adapt_state_dict(small.state_dict()))
    torch.save({"model": resized.state_dict()}, tmp_path / "vim32.pth")
    weights[1] = str(tmp_path / "vim32.pth")
    assert main([*words, "second", *weights]) == 0
    assert main([*words, "random"]) == 0
    tables = {
        name: (tmp_path / "demo_vision" / name / "predictions.csv").read_bytes()
        for name in ("first", "second", "random")
    }
    assert tables["first"] == tables["second"] != tables["random"]


def test_an_evaluation_says_when_a_part_of_its_weights_is_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = VisionMamba(img_size=16, patch_size=8, stride=4, dim=16, depth=1, d_state=2,
                        num_classes=4)  # fmt: skip
    torch.save(other.state_dict(), tmp_path / "vim.pth")
    words = ["--output", str(tmp_path), "--model.init_args.pretrained", str(tmp_path / "vim.pth")]
    with pytest.warns(UserWarning, match=r"mismatched: head.bias"):
        assert main(["validate", *TINY, *words]) == 0


def test_every_key_of_the_flag_table_exists() -> None:
    homes: dict[str, type] = {
        "": ImageClassification,
        "optimizer": Optimizer,
        "schedule": Schedule,
        "mixing": Mixing,
        "augment": Augment,
        "distillation": Distillation,
        "network.init_args": VisionMamba,
        "data.init_args": ImageNetDataModule,
        "trainer": Trainer,
    }
    text = (ROOT / "docs" / "vision.md").read_text()
    table = text[text.index("| flag | key |") : text.index("A teacher, for instance")]
    checked = 0
    for row in table.strip().splitlines()[2:]:
        above = ""
        for word in re.findall(r"`([\w.]+)(?::[^`]*)?`", re.split(r"(?<!\\)\|", row + " |")[2]):
            name = above + word if word.startswith(".") else word
            above, _, last = name.rpartition(".")
            if above in homes and name not in _OTHERS:
                assert last in inspect.signature(homes[above]).parameters, f"{name} in {row}"
                checked += 1
    assert checked > 60


def test_the_commands_of_the_page_parse(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "vision.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^bimamba ((?:fit|test) .*)$", text, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        words = command.split("#")[0].split()
        assert main([*words, "--print_config"]) == 0, capsys.readouterr().err
    named = re.findall(r"`(vim_\w+\.yaml)`", text)
    assert len(named) >= 6 and all((FOLDER / name).is_file() for name in named)
