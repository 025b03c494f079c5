"""Short words of predict: what they stand for, and where they do not belong."""

import json
from pathlib import Path

import pytest

from bimamba.main import main
from bimamba.prompts import spelled_out
from blocks.errors import SuiteError
from tests.conftest import ROOT


def option(words: list[str], name: str) -> str:
    return words[words.index(f"--data.init_args.{name}") + 1]


def test_other_words_stay_as_they_are() -> None:
    words = ["fit", "--config", "a.yaml", "--data.init_args.prompt", "x"]
    assert spelled_out(words) == words


def test_prompts_take_the_place_of_the_data(tmp_path: Path) -> None:
    config = tmp_path / "kit.yaml"
    config.write_text("data:\n  class_path: datamodules.motion.KITMLDataModule\n")
    given = ["--prompt", 'a "b", ä', "--prompt=two", "--duration", "2.5", "--ckpt_path", "c"]
    words = spelled_out(["predict", "--config", str(config), *given])
    assert words[:5] == ["predict", "--config", str(config), "--ckpt_path", "c"]
    assert words[words.index("--data.class_path") + 1] == "PromptsDataModule"
    assert json.loads(option(words, "prompt")) == ['a "b", ä', "two"]
    assert (option(words, "duration"), option(words, "skeleton")) == ("2.5", "kit")
    assert "--data.init_args.skeleton" not in spelled_out(["predict", "--prompt", "x"])


def test_a_prompt_without_text_and_a_fit_with_one_are_refused() -> None:
    with pytest.raises(SuiteError, match="value after --prompt"):
        spelled_out(["predict", "--prompt", "--duration", "3"])
    with pytest.raises(SuiteError, match="bimamba fit with --prompt"):
        spelled_out(["fit", "--prompt", "x"])


def test_the_command_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(
        ROOT / "configs" / "motion" / "evaluator.yaml"
    )  # Its data is another class with other arguments.
    words = ["predict", "--config", config, "--prompt", "a person walks", "--duration", "4"]
    assert main([*words, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "PromptsDataModule" in printed and "- a person walks" in printed
    assert "duration: 4.0" in printed and "preset" not in printed
