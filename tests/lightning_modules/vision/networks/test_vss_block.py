"""The block of VMamba, and the scan in it, against vectors made by running MzeroMiko/VMamba."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from blocks import SS2D
from blocks.errors import SuiteError
from lightning_modules.vision.networks.vss_block import VSSBlock
from tests.lightning_modules.vision.networks.vectors import read, relative_error

FILES: dict[str, Any] = {
    "ss2d_v0": SS2D,
    "ss2d_v2gate_nhwc": SS2D,
    "ss2d_v05_noz_nchw": SS2D,
    "vssblock_v0": VSSBlock,
    "vssblock_v05_noz": VSSBlock,
}


@pytest.mark.parametrize("name", FILES)
def test_equals_upstream_in_outputs_and_gradients(golden: Path, name: str) -> None:
    config, tensors = read(golden / "vision" / f"{name}.safetensors")
    module = FILES[name].from_upstream(config)
    module.load_state_dict({k[3:]: v for k, v in tensors.items() if k.startswith("sd.")})
    x = tensors["in.x"].requires_grad_()
    # SS2D has both orders of axes; our blocks are always channels last.
    turned = FILES[name] is VSSBlock and config.get("channel_first", False)
    y = module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if turned else module(x)
    (y * tensors["in.cotangent"]).sum().backward()

    assert torch.allclose(y, tensors["out.y"], atol=1e-5)
    assert relative_error(x.grad, tensors["grad.x"]) < 1e-4
    own = dict(module.named_parameters())
    gradients = {k[5:]: v for k, v in tensors.items() if k.startswith("grad.") and k != "grad.x"}
    assert gradients.keys() == own.keys()
    for key, expected in gradients.items():
        assert relative_error(own[key].grad, expected) < 1e-4, key


def test_without_an_mlp_has_no_entries_of_one() -> None:
    keys = VSSBlock(8, mlp_ratio=0.0).state_dict().keys()
    assert not any(key.startswith(("mlp", "norm2")) for key in keys)


def test_drop_path_drops_whole_branches_in_training_only() -> None:
    torch.manual_seed(0)
    block, x = VSSBlock(8, drop_path=0.999999), torch.randn(3, 2, 2, 8)
    assert torch.equal(block.train()(x), x)
    assert not torch.allclose(block.eval()(x), x)


def test_loads_one_by_one_convolutions_as_matrices() -> None:
    torch.manual_seed(0)
    block, x = VSSBlock(8), torch.randn(2, 3, 4, 8)
    state = block.state_dict()
    for key in ("op.in_proj.weight", "op.out_proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"):
        state[key] = state[key][:, :, None, None]
    again = VSSBlock(8)
    again.load_state_dict(state)
    assert torch.equal(again(x), block(x))


def test_grids_stay_channels_last_in_memory() -> None:
    block, seen = VSSBlock(8), []
    for module in block.modules():
        if isinstance(module, nn.LayerNorm | nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert block(torch.randn(2, 5, 6, 8)).is_contiguous()
    assert len(seen) == 7
    assert all(tensor.is_contiguous() for tensor in seen)


@pytest.mark.parametrize(
    ("option", "value"),
    [("gmlp", True), ("post_norm", True), ("norm_layer", "bn"), ("ssm_init", "v1")],
)
def test_variants_without_weights_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(SuiteError, match=option):
        VSSBlock.from_upstream({"hidden_dim": 8, option: value})


def test_upstream_defaults_apply() -> None:
    block = VSSBlock.from_upstream({"hidden_dim": 8})
    keys = block.state_dict()
    assert keys["op.in_proj.weight"].shape == (32, 8)  # ssm_ratio 2 and a gate
    assert keys["op.A_logs"].shape == (64, 16)
    assert "op.conv2d.bias" in keys and "mlp.fc1.weight" in keys
