"""Files as users have them: Vim's and DeiT's training checkpoints, through `pretrained`."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bimamba.main import main
from blocks.errors import SuiteError
from lightning_modules.vision import ImageClassification, VisionMamba, timm_network
from tests.conftest import ROOT

DEMO = str(ROOT / "configs" / "demo" / "vision.yaml")
VIT = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 16}


def vim(**options: Any) -> VisionMamba:
    given = {"img_size": 64, "dim": 16, "depth": 2, "num_classes": 5}
    return VisionMamba(**{**given, **options})


def deit(**options: Any) -> nn.Module:
    given = {"img_size": 64, "num_classes": 5, "options": VIT}
    return timm_network("deit_tiny_patch16_224", **{**given, **options})


def write_training_checkpoint(path: Path, network: nn.Module, prefix: str = "") -> dict[str, Any]:
    """As `main.py` of DeiT and of Vim write it."""
    state = network.state_dict()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    content = {
        "model": {prefix + key: value for key, value in state.items()},
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"base_values": [1e-3], "t_initial": 300, "_initialized": True},
        "epoch": 299,
        "model_ema": {prefix + key: value.clone() + 1 for key, value in state.items()},
        "scaler": "none",
        "args": argparse.Namespace(model="vim", batch_size=128, lr=5e-4, output_dir=Path("out")),
    }
    torch.save(content, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # What a plain reader makes of it.
    return content


def load(network: nn.Module, path: Path, weights: Any = "model") -> dict[str, Tensor]:
    module = ImageClassification(network, pretrained=str(path), pretrained_weights=weights)
    module.load_pretrained()
    return module.network.state_dict()


@pytest.mark.parametrize("weights", ["model", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("build", [vim, deit])
def test_a_training_checkpoint_loads_whole(
    tmp_path: Path, build: Any, prefix: str, weights: str
) -> None:
    content = write_training_checkpoint(tmp_path / "released.pth", build(), prefix)
    found = load(build(), tmp_path / "released.pth", weights)
    for key, value in found.items():
        assert torch.equal(value, content[weights][prefix + key]), key


@pytest.mark.parametrize("build", [vim, deit])
def test_a_bare_model_entry_loads_with_a_head_of_other_classes(tmp_path: Path, build: Any) -> None:
    released = build()
    torch.save({"model": released.state_dict()}, tmp_path / "released.pth")
    found = load(build(num_classes=3), tmp_path / "released.pth")
    assert found["head.weight"].shape == (3, 16)
    assert torch.equal(found["patch_embed.proj.weight"], released.patch_embed.proj.weight)


@pytest.mark.parametrize("build", [vim, deit])
def test_positions_follow_the_image_size(tmp_path: Path, build: Any) -> None:
    released = build()
    torch.save({"model": released.state_dict()}, tmp_path / "released.pth")
    found = load(build(img_size=96), tmp_path / "released.pth")
    old, new = (8, 18) if build is vim else (0, 0)  # rows of the class tokens
    assert torch.equal(found["pos_embed"][:, new], released.pos_embed[:, old])


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("place", ["args", "model"])
def test_a_hostile_file_is_refused_and_does_nothing(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, trace = tmp_path / "vim_t_midclstok_76p1acc.pth", tmp_path / "trace"
    content: dict[str, Any] = {"model": dict(vim().state_dict())}
    if place == "args":
        content["args"] = Attack(trace)
    else:
        content["model"]["cls_token"] = Attack(trace)
    torch.save(content, path)
    network = vim()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(SuiteError):
        load(network, path)
    assert not trace.exists()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    words = ["--config", DEMO, "--output", str(tmp_path), "--model.init_args.pretrained", str(path)]
    assert main(["check", *words]) == 1
    print(capsys.readouterr().out)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.read_text() == "ran"  # The attack is real.


def test_weights_of_another_stride_are_refused_by_check_and_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"img_size": 32, "patch_size": 8, "dim": 64, "depth": 4, "d_state": 8}
    released = VisionMamba(stride=8, num_classes=10, **network)  # type: ignore[arg-type]
    torch.save({"model": released.state_dict()}, tmp_path / "stride8.pth")
    words = ["--config", DEMO, "--output", str(tmp_path), "--model.init_args.pretrained"]
    words.append(str(tmp_path / "stride8.pth"))
    for verb in ("check", "fit"):
        assert main([verb, *words]) != 0
        output = capsys.readouterr()
        text = " ".join((output.out + output.err).split())
        assert "learned at stride 4" in text and "32 x 32 pixels at stride 8" in text
        assert "pretrained_stride" in text
