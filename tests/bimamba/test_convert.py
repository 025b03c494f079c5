"""`bimamba convert` on files with the true structure of released ones."""

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from bimamba.main import main
from bimamba.recognition import Family, recognise
from blocks.weights import read_state_dict
from lightning_modules.vision import VisionMamba

TINY = {"img_size": 32, "patch_size": 8, "dim": 16, "depth": 2, "num_classes": 3}


def vim_file(tmp_path: Path, **changed: Any) -> Path:
    """A training checkpoint as hustvl/Vim writes it."""
    torch.manual_seed(0)
    state = VisionMamba(**{**TINY, **changed}).state_dict()
    content = {
        "model": state,
        "model_ema": {key: value + 1 for key, value in state.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "lr_scheduler": {"step": 1},
        "epoch": 299,
        "scaler": "none",
        "args": argparse.Namespace(model="vim_tiny", lr=5e-4),
    }
    torch.save(content, tmp_path / "vim_t_midclstok_76p1acc.pth")
    return tmp_path / "vim_t_midclstok_76p1acc.pth"


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        found: dict[str, str] = file.metadata()
    return found


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("weights", ["model", "model_ema"])
def test_a_vim_file_becomes_safetensors_with_its_keys(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = vim_file(tmp_path), tmp_path / "out" / "vim.safetensors"
    words = ["convert", str(source), "--to", str(target), "--weights", weights]
    assert main(words) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "Vim, 16 wide, 2 deep, v2, 17 positions, patches of 8 px" in out
    other = "model" if weights == "model_ema" else "model_ema"
    assert f"left out  {other}, optimizer, lr_scheduler, scaler, args" in out
    assert "epoch     299" in out
    assert equal(load_file(target), torch.load(source, weights_only=False)[weights])
    facts = metadata(target)
    assert (facts["family"], facts["weights"], facts["epoch"]) == ("Vim", weights, "299")
    assert facts["source"] == source.name
    # The file is one for `pretrained`.
    assert equal(read_state_dict(target), load_file(target))


def test_a_vmamba_file_with_its_config_class_is_read(tmp_path: Path, golden: Path) -> None:
    module = ModuleType("yacs.config")
    node: Any = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = node  # type: ignore[attr-defined]
    state = {
        key.removeprefix("sd."): value
        for key, value in load_file(golden / "vision" / "vssm_v0_tinycfg.safetensors").items()
        if key.startswith("sd.")
    }
    sys.modules |= {"yacs": ModuleType("yacs"), "yacs.config": module}
    try:
        content = {"model": state, "epoch": 7, "max_accuracy": 82.2, "config": node(a=1)}
        torch.save(content, tmp_path / "vssm.pth")
    finally:
        del sys.modules["yacs"], sys.modules["yacs.config"]
    target = tmp_path / "vssm.safetensors"
    assert main(["convert", str(tmp_path / "vssm.pth"), "--to", str(target)]) == 0
    assert metadata(target)["family"] == "VMamba"
    assert equal(load_file(target), state)


def test_published_sizes_have_their_names() -> None:
    with torch.device("meta"):
        small = VisionMamba(dim=384, depth=24).state_dict()
        deit = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    assert recognise(small).size == "small, 384 wide, 24 deep, v2, 197 positions, patches of 16 px"
    assert recognise(deit).name == "DeiT"
    assert recognise(deit).size.startswith("tiny, 192 wide, 12 deep, distilled, 198 positions")
    assert recognise({"conv.weight": torch.zeros(1)}) == Family("unknown", "")


@pytest.mark.parametrize("kind", ["v1", "v2", "none"])
def test_the_directions_of_vim_are_told(kind: Any) -> None:
    state = VisionMamba(**{**TINY, "bimamba_type": kind}).state_dict()
    assert f", {kind if kind != 'none' else 'one direction'}," in recognise(state).size


@pytest.mark.parametrize("name", ["vmamba_tiny_s1l8", "vmamba_tiny_s2l5"])
def test_vmambas_measures_are_read_off(name: str) -> None:
    from lightning_modules.vision.networks import timm_vmamba  # noqa: F401

    with torch.device("meta"):
        found = recognise(timm.create_model(name).state_dict())
    third = 8 if name.endswith("l8") else 5
    assert found.name == "VMamba"
    assert found.size == f"blocks 2, 2, {third}, 2, first 96 wide, 1 states a channel"


def test_through_a_network_positions_take_the_size_of_its_images(tmp_path: Path) -> None:
    config = tmp_path / "large.yaml"
    config.write_text(
        "model:\n  class_path: ImageClassification\n  init_args:\n    network:\n"
        "      class_path: VisionMamba\n      init_args:\n"
        "        {img_size: 48, patch_size: 8, dim: 16, depth: 2, num_classes: null}\n"
    )
    source, target = vim_file(tmp_path), tmp_path / "large.safetensors"
    assert main(["convert", str(source), "--to", str(target), "--network", str(config)]) == 0
    large = VisionMamba(**{**TINY, "img_size": 48})
    assert equal(load_file(target), large.adapt_state_dict(read_state_dict(source)))
    large.load_state_dict(load_file(target))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--to", "x.pth"], "write --to x.safetensors"),
        (["--to", "x.safetensors", "--network", "none.yaml"], "no such file"),
        (["--to", "x.safetensors", "--network", "other.yaml"], "build the network the weights"),
    ],
)
def test_bad_words_write_nothing(
    tmp_path: Path,
    words: list[str],
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text(
        "model: {init_args: {network: {class_path: VisionMamba, init_args: {dim: 32, depth: 1}}}}"
    )
    source = vim_file(tmp_path)
    before = sorted(os.listdir(tmp_path))
    assert main(["convert", str(source), *words]) == 2
    assert advice in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == before


def test_a_hostile_pickle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "boom"),)

    torch.save({"model": {"w": torch.ones(1)}, "args": Bomb()}, tmp_path / "x.pth")
    target = tmp_path / "x.safetensors"
    assert main(["convert", str(tmp_path / "x.pth"), "--to", str(target)]) == 2
    assert "it was not run" in capsys.readouterr().err
    assert not target.exists() and not (tmp_path / "boom").exists()
