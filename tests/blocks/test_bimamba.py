import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks import BiMamba, Mamba, bimamba_inner
from blocks.errors import SuiteError

NAMES = ["none", "v1", "v2", "v2_div2", "v2_layerscale_bias"]
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def load(path: Path, dtype: torch.dtype) -> tuple[dict, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(bytes(file["meta"]))
        return meta, {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}


def assert_near(ours: Tensor, expected: Tensor, double: float, single: float) -> None:
    bound = double if expected.dtype == torch.float64 else single
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


@PRECISIONS
@pytest.mark.parametrize("name", ["inner_bimamba_v1", "inner_bimamba_v1_bias"])
def test_inner_function_equals_the_golden_vectors(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    _, arrays = load(golden / "kernels" / f"{name}.npz", dtype)
    inputs = {k[3:]: v.requires_grad_() for k, v in arrays.items() if k.startswith("in.")}
    absent = {k: None for k in ("out_proj_bias",) if k not in inputs}
    out = bimamba_inner(**inputs, **absent)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    for key, value in inputs.items():
        assert_near(value.grad, arrays[f"grad.{key}"], 1e-12, 1e-5)


@PRECISIONS
@pytest.mark.parametrize("name", NAMES)
def test_module_equals_vim_with_the_same_weights(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    meta, arrays = load(golden / "kernels" / f"module_vim_{name}.npz", dtype)
    module = BiMamba.from_upstream(meta["config"]).to(dtype)
    module.load_state_dict({k[3:]: v for k, v in arrays.items() if k.startswith("sd.")})
    x = arrays["in.x"].requires_grad_()
    out = module(x)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    assert_near(x.grad, arrays["grad.x"], 1e-12, 1e-5)
    for key, parameter in module.named_parameters():
        assert_near(parameter.grad, arrays[f"grad.sd.{key}"], 1e-12, 1e-5)


def test_swapping_the_branches_of_v2_flips_the_output() -> None:
    module, x = BiMamba(8, d_state=4).double(), torch.randn(2, 11, 8, dtype=torch.float64)
    swapped = copy.deepcopy(module)
    own = ("conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias")
    partner = {"A_log": "A_b_log", "D": "D_b"} | {name: name.replace(".", "_b.") for name in own}
    partner |= {b: a for a, b in partner.items()}
    state = module.state_dict()
    swapped.load_state_dict({name: state[partner.get(name, name)] for name in state})
    torch.testing.assert_close(swapped(x.flip(1)).flip(1), module(x), rtol=0, atol=1e-12)


def test_none_is_a_mamba() -> None:
    module, x = BiMamba(8, bimamba_type="none"), torch.randn(2, 6, 8)
    mamba = Mamba(8)
    mamba.load_state_dict(module.state_dict())
    assert torch.equal(module(x), mamba(x))


@pytest.mark.parametrize("kind", ["none", "v1", "v2"])
def test_nan_padding_changes_neither_results_nor_gradients(kind: str) -> None:
    module = BiMamba(8, bimamba_type=kind, bias=True).double()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    alone = module(x[1:, :4])
    x[1, 4:] = float("nan")
    x.requires_grad_()
    out = module(x, lengths=torch.tensor([9, 4]))
    torch.testing.assert_close(out[1:, :4], alone, rtol=0, atol=1e-12)
    assert (out[1, 4:] == 0).all()
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in (x, *module.parameters()))
    assert (x.grad[1, 4:] == 0).all()


def test_every_step_of_v2_sees_past_and_future() -> None:
    module, x = BiMamba(8), torch.randn(1, 9, 8, requires_grad=True)
    module(x)[0, 4].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize(("kind", "count"), [("none", 9), ("v1", 10), ("v2", 16)])
def test_state_dict_has_vims_keys(kind: str, count: int) -> None:
    module = BiMamba(8, bimamba_type=kind)
    assert len(module.state_dict()) == count
    assert "gamma" in BiMamba(8, bimamba_type=kind, init_layer_scale=0.0).state_dict()
    own = module.no_weight_decay()
    assert own <= set(dict(module.named_parameters()))
    assert len(own) == {"none": 3, "v1": 4, "v2": 6}[kind]


def test_backward_steps_start_as_upstream_or_matched() -> None:
    upstream = BiMamba(16).dt_proj_b
    assert (upstream.bias == 0).all()
    matched = BiMamba(16, backward_dt_init="matched").dt_proj_b
    steps = F.softplus(matched.bias)
    assert 0.00099 < steps.min() < steps.max() < 0.101


def test_halving_is_for_two_branches_only() -> None:
    for kind, ratio in (("v2", 0.5), ("v1", 1.0)):
        module, x = BiMamba(8, bimamba_type=kind), torch.randn(1, 5, 8)
        halved = BiMamba(8, bimamba_type=kind, divide_out=True)
        halved.load_state_dict(module.state_dict())
        torch.testing.assert_close(halved(x), module(x) * ratio)


def test_autocast_stays_close_to_float32() -> None:
    torch.manual_seed(0)
    module, x = BiMamba(16, init_layer_scale=0.5), torch.randn(2, 30, 16)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert (out - exact).abs().max() < 0.03 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


def test_copies_and_pickles_compute_the_same() -> None:
    module, x = BiMamba(8), torch.randn(1, 5, 8)
    expected = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), expected)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_it_compiles_as_one_graph(kind: str) -> None:
    torch._dynamo.reset()
    module, x = BiMamba(8, bimamba_type=kind), torch.randn(2, 7, 8)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x).square().sum(), list(module.parameters()))
    theirs = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(SuiteError, match="(?s)none, v1, v2.*'v3'"):
        BiMamba(8, bimamba_type="v3")
    with pytest.raises(SuiteError, match="upstream, matched"):
        BiMamba(8, backward_dt_init="same")
    with pytest.raises(SuiteError, match="did you mean 'if_divide_out'"):
        BiMamba.from_upstream({"d_model": 8, "if_devide_out": True})
