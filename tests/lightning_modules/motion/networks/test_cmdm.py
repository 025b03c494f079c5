"""CMDM against the original: conditions, erased, masked; keys; length-exact scans."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from blocks.errors import SuiteError
from blocks.weights import load_weights, read_state_dict
from lightning_modules.motion import CMDM
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "motion"
KEYS: dict[str, Any] = json.loads((FOLDER / "manifest_cmdm_keys.json").read_text())
ARCHS = ("bimamba", "trans_enc", "trans_dec", "trans_mamba")


def config_of(arch: str) -> dict[str, Any]:
    with safe_open(FOLDER / f"cmdm_{arch}.safetensors", "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
    return config


def load(arch: str) -> tuple[CMDM, dict[str, Tensor]]:
    with safe_open(FOLDER / f"cmdm_{arch}.safetensors", "pt") as file:
        vectors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network = CMDM.from_upstream(config_of(arch))
    state = {k[3:]: v for k, v in vectors.items() if k.startswith("sd/")}
    for key, value in state.items():  # Counters were stored with an axis.
        if key.endswith("num_batches_tracked"):
            state[key] = value.squeeze()
    network.load_state_dict(network.adapt_state_dict(state))
    return network.eval(), vectors


def run(network: CMDM, vectors: dict[str, Tensor], **options: Tensor) -> Tensor:
    return network(
        vectors["in/x"], vectors["in/t"], vectors["in/text_embed"],
        vectors["in/x_mask_true_is_padding"].bool(), points=vectors["in/pc_xyz"],
        contact=vectors["in/pc_contact"], **options,
    )  # fmt: skip


def close_where_valid(found: Tensor, expected: Tensor, vectors: dict[str, Tensor]) -> None:
    valid = ~vectors["in/x_mask_true_is_padding"].bool()
    torch.testing.assert_close(found[valid], expected[valid], rtol=0, atol=5e-5)


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_it_computes_what_the_original_computes(arch: str) -> None:
    network, vectors = load(arch)
    levels = network.contact_encoder(vectors["in/pc_xyz"], vectors["in/pc_contact"])
    for i, level in enumerate(levels):
        name = f"mid/contact_encoder_{i}" if arch == "trans_dec" else "mid/contact_encoder"
        torch.testing.assert_close(level, vectors[name], rtol=0, atol=5e-5)
    close_where_valid(run(network, vectors), vectors["out/cond"], vectors)
    all_of_them = torch.ones(len(vectors["in/x"]), dtype=torch.bool)
    erased = run(network, vectors, erase_text=all_of_them, erase_contact=all_of_them)
    close_where_valid(erased, vectors["out/text_and_contact_erased"], vectors)
    masked = run(network, vectors, mask_text=all_of_them, mask_contact=all_of_them)
    close_where_valid(masked, vectors["out/text_and_contact_masked"], vectors)


@pytest.mark.parametrize("arch", ARCHS)
def test_keys_and_sizes_are_the_published_ones(arch: str) -> None:
    layers = {"bimamba": (3, 2)}.get(arch, (1, 1, 1, 1, 1))
    with torch.device("meta"):
        network = CMDM(arch=arch, num_layers=layers, contact="points")
    expected = KEYS[arch].get("keys", KEYS[arch])
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    tables = {key for key in expected if key.endswith(".pe")}
    assert found == {key: shape for key, shape in expected.items() if key not in tables}


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@torch.no_grad()
def test_a_file_of_the_fork_loads(tmp_path: Path, wrapper: str | None) -> None:
    expected, vectors = load("bimamba")
    state = {f"module.{key}": value for key, value in expected.state_dict().items()}
    state["module.timestep_embedder.pe"] = torch.zeros(1000, 1, 16)
    state["module.positional_encoder.pe"] = torch.zeros(5000, 1, 16)
    state["module.text_model.ln_final.weight"] = torch.zeros(4)
    torch.save({wrapper: state, "step": 7} if wrapper else state, tmp_path / "model000007.pt")
    network = CMDM.from_upstream(config_of("bimamba"))
    found = network.adapt_state_dict(read_state_dict(tmp_path / "model000007.pt"))
    report = load_weights(network, found, source="fork")
    assert report.fraction == 1 and not report.unexpected and not report.missing
    close_where_valid(run(network.eval(), vectors), vectors["out/cond"], vectors)


def test_the_start_up_table_is_the_forks() -> None:
    assert CMDM(dim=16, num_heads=2).architecture().splitlines() == [
        "",
        "==================== CMDM Architecture Info ====================",
        "Arch: bimamba",
        "Total Layers: 5",
        "  Layer 1: TransformerEncoderLayer",
        "  Layer 2: TransformerEncoderLayer",
        "  Layer 3: TransformerEncoderLayer",
        "  Layer 4: BidirectionalMambaBlock",
        "  Layer 5: BidirectionalMambaBlock",
        "================================================================",
    ]


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_a_sample_does_not_notice_its_padding(masked: bool) -> None:
    torch.manual_seed(0)
    network = CMDM(in_features=5, dim=16, num_heads=2, dim_feedforward=32, text_dim=8).eval()
    x, time, text = torch.randn(2, 12, 5), torch.tensor([3, 700]), torch.randn(2, 8)
    mask = torch.arange(12) >= torch.tensor([[12], [7]])
    hide = torch.tensor([False, masked])
    both = network(x, time, text, mask, mask_text=hide)
    alone = network(x[1:, :7], time[1:], text[1:], mask_text=hide[1:])
    torch.testing.assert_close(both[1:, :7], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_scene_is_encoded_once_for_all_steps() -> None:
    network, vectors = load("trans_dec")
    scene = network.encode_scene(vectors["in/pc_xyz"], vectors["in/pc_contact"])
    given = vectors["in/x"], vectors["in/t"], vectors["in/text_embed"]
    mask = vectors["in/x_mask_true_is_padding"].bool()
    close_where_valid(network(*given, mask, scene=scene), vectors["out/cond"], vectors)


def test_a_scene_that_is_missing_or_senseless_is_named() -> None:
    small: dict[str, Any] = {"in_features": 5, "dim": 16, "num_heads": 2, "text_dim": 8}
    network = CMDM(**small, contact="points", planes=(8, 8, 16, 16))
    given = torch.zeros(1, 4, 5), torch.zeros(1, dtype=torch.long), torch.zeros(1, 8)
    with pytest.raises(SuiteError, match="contact: none"):
        network(*given)
    with pytest.raises(SuiteError, match="at least 1024 points"):
        network(*given, points=torch.zeros(1, 64, 3), contact=torch.zeros(1, 64, 6))
    with pytest.raises(SuiteError, match="arch: trans_dec"):
        CMDM(**small, arch="trans_dec")
    with pytest.raises(SuiteError, match="1 to 5 Mamba blocks"):
        CMDM(**small, mamba_layers=6)
