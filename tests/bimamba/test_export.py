"""`bimamba export`: out of a run, into upstream's form, and back without a changed bit."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bimamba.export import checkpoint_of, to_upstream
from bimamba.main import main
from bimamba.networks import build_network
from blocks.errors import SuiteError
from blocks.weights import load_weights, read_state_dict
from lightning_modules.vision import ImageClassification, VisionMamba
from tests.demo import TINY


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a moving average."""
    output = tmp_path_factory.mktemp("runs")
    words = ["--trainer.callbacks+=EMA", "--output", str(output), "--run_name", "run"]
    assert main(["fit", *TINY, *words]) == 0
    return output / "demo_vision" / "run"


def stored(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    content = torch.load(checkpoint_of(run), weights_only=True)
    return {"ema": content["state_dict"], "raw": content["current_model_state"]}


@pytest.mark.parametrize("weights", ["ema", "raw"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_weights_come_out_and_go_back_in(
    trained: Path, tmp_path: Path, weights: str, suffix: str
) -> None:
    target = tmp_path / f"net{suffix}"
    assert main(["export", str(trained), "--to", str(target), "--weights", weights]) == 0
    found = read_state_dict(target)
    expected = stored(trained)[weights]
    assert found.keys() == {
        k.removeprefix("network.") for k in expected if k.startswith("network.")
    }
    assert all(torch.equal(value, expected[f"network.{key}"]) for key, value in found.items())
    module = ImageClassification.load_from_checkpoint(checkpoint_of(trained)).eval()
    other = build_network(module.init_call["init_args"]["network"]).eval()
    load_weights(other, found, source="export")
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(other(images), module(images)) is (weights == "ema")


def test_upstreams_loader_takes_the_pth(trained: Path, tmp_path: Path) -> None:
    assert main(["export", str(trained), "--to", str(tmp_path / "net.pth")]) == 0
    checkpoint = torch.load(tmp_path / "net.pth", weights_only=True)
    network = build_network(checkpoint["network"])
    network.load_state_dict(checkpoint["model"], strict=True)
    assert {"epoch", "step", "weights", "info"} <= checkpoint.keys()


def test_the_metadata_rebuilds_the_network_and_names_its_classes(
    trained: Path, tmp_path: Path
) -> None:
    target = tmp_path / "net.safetensors"
    assert main(["export", str(trained), "--to", str(target)]) == 0
    with safe_open(target, "pt") as file:
        facts = file.metadata()
    network = build_network(json.loads(facts["network"]))
    network.load_state_dict(load_file(target), strict=True)
    assert len(json.loads(facts["info"])["class_names"]) == 10
    assert facts["weights"] == "ema"


def test_convert_reads_what_export_wrote(trained: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "net.pth", tmp_path / "again.safetensors"
    assert main(["export", str(trained), "--to", str(first)]) == 0
    assert main(["convert", str(first), "--to", str(second)]) == 0
    one, other = read_state_dict(first), read_state_dict(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_best_checkpoint_of_a_run_is_meant(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(SuiteError, match="without checkpoints/best"):
        checkpoint_of(tmp_path)
    for name in ("last", "best-000-10", "best-001-20"):
        (folder / f"{name}.ckpt").touch()
        os.utime(folder / f"{name}.ckpt", (0, time.time() + len(os.listdir(folder))))
        expected = name if name == "last" else "best"
        assert checkpoint_of(tmp_path).stem.startswith(expected)
    assert checkpoint_of(tmp_path).stem == "best-001-20"
    assert checkpoint_of(folder / "last.ckpt") == folder / "last.ckpt"


def test_a_network_of_ours_may_translate_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(_: VisionMamba, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key.replace("head", "fc"): value for key, value in state.items()}

    monkeypatch.setattr(VisionMamba, "to_upstream_state", rename, raising=False)
    network = VisionMamba(img_size=16, dim=8, depth=1, num_classes=2)
    translated = to_upstream(network.init_call, network.state_dict())
    assert "fc.weight" in translated and "head.weight" not in translated
    # What a file names is imported only if it is ours.
    assert to_upstream({"class_path": "os.system", "init_args": {}}, translated) is translated


def test_foreign_files_and_missing_averages_are_refused_with_a_cure(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "vim.pth")
    target = str(tmp_path / "x.safetensors")
    assert main(["export", str(tmp_path / "vim.pth"), "--to", target]) == 2
    assert "bimamba convert" in capsys.readouterr().err
    content = torch.load(checkpoint_of(trained), weights_only=True)
    del content["current_model_state"]
    torch.save(content, tmp_path / "raw.ckpt")
    words = ["export", str(tmp_path / "raw.ckpt"), "--to", target]
    assert main([*words, "--weights", "ema"]) == 2
    assert "leave --weights out" in capsys.readouterr().err
    assert not Path(target).exists()
    assert main(words) == 0
    assert main([*words[:-1], str(tmp_path / "x.txt")]) == 2
    assert ".safetensors" in capsys.readouterr().err
