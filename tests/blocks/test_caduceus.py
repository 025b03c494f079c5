import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.caduceus import CaduceusMixer
from blocks.errors import SuiteError
from blocks.mamba import Mamba

DOUBLE = torch.float64
STRATEGIES = pytest.mark.parametrize("strategy", ["add", "ew_multiply"])


def assert_near(ours: Tensor, expected: Tensor, double: float, single: float) -> None:
    bound = double if expected.dtype == DOUBLE else single
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


def assert_tied(module: CaduceusMixer) -> None:
    assert module.mamba_rev.in_proj.weight is module.mamba_fwd.in_proj.weight
    assert module.mamba_rev.out_proj.weight is module.mamba_fwd.out_proj.weight


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("name", ["tied", "mul_untied"])
def test_module_equals_upstream_with_the_same_weights(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    with np.load(golden / "kernels" / f"module_caduceus_{name}.npz", allow_pickle=False) as file:
        meta = json.loads(bytes(file["meta"]))
        arrays = {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}
    module = CaduceusMixer.from_upstream(meta["config"]).to(dtype)
    module.load_state_dict({k[3:]: v for k, v in arrays.items() if k.startswith("sd.")})
    x = arrays["in.x"].requires_grad_()
    out = module(x)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    assert_near(x.grad, arrays["grad.x"], 1e-12, 1e-5)
    parameters = dict(module.named_parameters())
    assert {f"grad.sd.{key}" for key in parameters} == {k for k in arrays if "grad.sd." in k}
    for key, parameter in parameters.items():
        assert_near(parameter.grad, arrays[f"grad.sd.{key}"], 1e-12, 1e-5)


@STRATEGIES
def test_it_is_two_mambas_one_of_them_between_flips(strategy: str) -> None:
    module, x = CaduceusMixer(8, strategy=strategy), torch.randn(2, 6, 8)
    mamba_rev = Mamba(8)
    mamba_rev.load_state_dict(module.mamba_rev.state_dict())
    y, y_rev = module.mamba_fwd(x), mamba_rev(x.flip(1)).flip(1)
    torch.testing.assert_close(module(x), y + y_rev if strategy == "add" else y * y_rev)


@STRATEGIES
def test_a_batch_with_nan_padding_equals_each_sample_alone(strategy: str) -> None:
    module = CaduceusMixer(8, strategy=strategy, bias=True).double()
    x = torch.randn(3, 9, 8, dtype=DOUBLE)
    lengths = torch.tensor([9, 4, 1])
    alone = [module(sample[None, :n])[0] for sample, n in zip(x, lengths, strict=True)]
    expected = torch.autograd.grad(sum(y.square().sum() for y in alone), module.parameters())
    for sample, n in zip(x, lengths, strict=True):
        sample[n:] = float("nan")
    x.requires_grad_()
    out = module(x, lengths=lengths)
    for ours, y, n in zip(out, alone, lengths, strict=True):
        torch.testing.assert_close(ours[:n], y, rtol=0, atol=1e-12)
        assert (ours[n:] == 0).all()
    out.square().sum().backward()
    for parameter, grad in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-10, atol=1e-11)
    assert x.grad.isfinite().all() and (x.grad[1, 4:] == 0).all()


@pytest.mark.parametrize("tie", [True, False])
def test_state_dict_lists_both_mambas_whole_even_when_tied(tie: bool) -> None:
    module = CaduceusMixer(8, tie_projections=tie)
    both = {f"{name}.{key}" for name in ("mamba_fwd", "mamba_rev") for key in Mamba(8).state_dict()}
    assert set(module.state_dict()) == both
    assert len(list(module.parameters())) == (16 if tie else 18)


def test_tied_projections_stay_tied_through_copies_pickles_and_loading() -> None:
    module, x = CaduceusMixer(8, bias=True), torch.randn(1, 5, 8)
    expected = module(x)
    loaded, assigned = CaduceusMixer(8, bias=True), CaduceusMixer(8, bias=True)
    loaded.load_state_dict(module.state_dict())
    assigned.load_state_dict(copy.deepcopy(module.state_dict()), assign=True)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded, assigned):
        assert_tied(twin)
        assert torch.equal(twin(x), expected)
    with torch.device("meta"):
        empty = CaduceusMixer(8)
    assert_tied(empty.to_empty(device="cpu"))


def test_parameters_without_weight_decay_exist_under_these_names() -> None:
    module = CaduceusMixer(8)
    assert len(module.no_weight_decay()) == 6
    assert module.no_weight_decay() <= set(dict(module.named_parameters()))


def test_autocast_stays_close_to_float32() -> None:
    torch.manual_seed(0)
    module, x = CaduceusMixer(16), torch.randn(2, 30, 16)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.03 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


@STRATEGIES
def test_it_compiles_as_one_graph(strategy: str) -> None:
    torch._dynamo.reset()
    module, x = CaduceusMixer(8, strategy=strategy), torch.randn(2, 7, 8)
    lengths, parameters = torch.tensor([7, 3]), list(module.parameters())
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x, lengths).square().sum(), parameters)
    theirs = torch.autograd.grad(module(x, lengths).square().sum(), parameters)
    torch.testing.assert_close(ours, theirs)


def test_upstreams_missing_strategy_means_add() -> None:
    config = {"d_model": 8, "bidirectional": True, "bidirectional_strategy": None}
    assert CaduceusMixer.from_upstream(config).strategy == "add"


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(SuiteError, match=r"\(batch, time, 8\)"):
        CaduceusMixer(8)(torch.zeros(2, 8, 5))
    with pytest.raises(SuiteError, match="(?s)add or ew_multiply.*'mean'"):
        CaduceusMixer(8, strategy="mean")
    with pytest.raises(SuiteError, match="build a blocks.Mamba"):
        CaduceusMixer.from_upstream({"d_model": 8, "bidirectional": False})
    with pytest.raises(SuiteError, match="did you mean 'bidirectional_weight_tie'"):
        CaduceusMixer.from_upstream({"d_model": 8, "bidirectional_weight_ties": True})
