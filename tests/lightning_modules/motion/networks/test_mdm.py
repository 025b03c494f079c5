"""MDM against the original: with text, without, guided; keys; published files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.motion import MDM
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "motion"
NAMES = ("mdm_trans_enc", "mdm_trans_enc_nomask", "mdm_trans_dec")
TABLES = ("sequence_pos_encoder.pe", "embed_timestep.sequence_pos_encoder.pe")


def load(name: str) -> tuple[MDM, dict[str, Tensor], dict[str, Any]]:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        vectors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network = MDM.from_upstream(config)
    network.load_state_dict({k[3:]: v for k, v in vectors.items() if k.startswith("sd/")})
    return network.eval(), vectors, config


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_computes_what_the_original_computes(name: str) -> None:
    network, vectors, _ = load(name)
    x = vectors["in/x"].squeeze(2).mT
    padding = ~vectors["in/mask_true_is_valid"].flatten(1).bool()
    text = vectors["in/text_embed"].transpose(0, 1)
    everybody = torch.ones(len(x), dtype=torch.bool)
    cond = network(x, vectors["in/t"], text, padding)
    uncond = network(x, vectors["in/t"], text, padding, erase_text=everybody)
    found = {"cond": cond, "uncond": uncond, "cfg_2.5": uncond + 2.5 * (cond - uncond)}
    for key, value in found.items():
        expected = vectors[f"out/{key}"].squeeze(2).mT
        torch.testing.assert_close(value[~padding], expected[~padding], rtol=0, atol=2e-5)


@pytest.mark.parametrize("place", [0, 1])
def test_keys_and_sizes_are_the_published_ones(place: int) -> None:
    manifest = json.loads((FOLDER / "manifest_mdm_keys.json").read_text())
    options: dict[str, Any] = [{}, {"arch": "trans_dec", "text_dim": 768}][place]
    expected = list(manifest.values())[place]
    with torch.device("meta"):
        network = MDM(**options)
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == {key: shape for key, shape in expected.items() if key not in TABLES}
    assert sum(p.numel() for p in network.parameters()) == [17_880_327, 26_424_583][place]


def published(folder: Path, **arguments: Any) -> Path:
    """A file as upstream's training writes it, its average twice the weights."""
    network, _, _ = load("mdm_trans_dec")
    state = network.state_dict() | {key: torch.zeros(5000, 1, 16) for key in TABLES}
    average = {key: 2 * value for key, value in state.items()}
    torch.save({"model": state, "model_avg": average}, folder / "model000001000.pt")
    known = {
        "arch": "trans_dec", "latent_dim": 16, "layers": 2, "heads": 2, "ff_size": 24,
        "dataset": "humanml", "text_encoder_type": "bert", "mask_frames": True, "lr": 1e-4,
        "input_feats": 11, "clip_dim": 10, "emb_trans_dec": True,
    }  # fmt: skip
    (folder / "args.json").write_text(json.dumps(known | arguments))
    return folder / "model000001000.pt"


def test_a_published_file_and_its_average_load(tmp_path: Path) -> None:
    path = published(tmp_path)
    weights, average = (MDM.from_published(path, kind) for kind in ("model", "model_ema"))
    expected, _, _ = load("mdm_trans_dec")
    for key, value in expected.state_dict().items():
        assert torch.equal(weights.state_dict()[key], value)
        assert torch.equal(average.state_dict()[key], 2 * value)


def test_what_a_published_file_lacks_is_named(tmp_path: Path) -> None:
    path = published(tmp_path, layers=3)
    with pytest.raises(SuiteError, match="at least 100% of MDM"):
        MDM.from_published(path)
    (tmp_path / "args.json").unlink()
    with pytest.raises(SuiteError, match="args.json"):
        MDM.from_published(path)
    with pytest.raises(SuiteError, match="gru"):
        MDM.from_upstream({"arch": "gru"})


def test_arguments_of_upstream_decide_the_sizes() -> None:
    with torch.device("meta"):
        kit = MDM.from_upstream({"dataset": "kit", "text_encoder_type": "clip"})
        human = MDM.from_upstream({"dataset": "humanml", "text_encoder_type": "bert"})
    assert (kit.in_features, kit.text_dim, kit.sees_padding) == (251, 512, True)
    assert (human.in_features, human.text_dim) == (263, 768)


@torch.no_grad()
def test_padding_of_words_and_frames_changes_nothing_in_the_decoder() -> None:
    torch.manual_seed(0)
    network = MDM(5, 16, "trans_dec", 2, 2, 24, text_dim=8).eval()
    x, time, text = torch.randn(2, 12, 5), torch.tensor([3, 700]), torch.randn(2, 6, 8)
    frames = torch.arange(12) >= torch.tensor([[12], [7]])
    words = torch.arange(6) >= torch.tensor([[6], [2]])
    both = network(x, time, text, frames, words)
    alone = network(x[1:, :7], time[1:], text[1:, :2])
    torch.testing.assert_close(both[1:, :7], alone, rtol=0, atol=1e-5)


def test_the_encoder_refuses_words() -> None:
    network = MDM(5, 16, "trans_enc", 1, 2, 24, text_dim=8)
    with pytest.raises(SuiteError, match="one text token"):
        network(torch.zeros(1, 4, 5), torch.zeros(1, dtype=torch.long), torch.zeros(1, 3, 8))
