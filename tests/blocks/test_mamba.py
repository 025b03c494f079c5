import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks import Mamba, mamba_inner
from blocks.errors import SuiteError
from blocks.mamba import decay

KEYS = {
    "A_log", "D", "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight",
    "dt_proj.weight", "dt_proj.bias", "out_proj.weight",
}  # fmt: skip
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def load(path: Path, dtype: torch.dtype = torch.float64) -> tuple[dict, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(bytes(file["meta"]))
        return meta, {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}


def load_module(path: Path, dtype: torch.dtype) -> tuple[Mamba, dict[str, Tensor]]:
    meta, arrays = load(path, dtype)
    module = Mamba.from_upstream(meta["config"]).to(dtype)
    module.load_state_dict({k[3:]: v for k, v in arrays.items() if k.startswith("sd.")})
    return module, arrays


def assert_near(ours: Tensor, expected: Tensor, double: float, single: float) -> None:
    bound = double if expected.dtype == torch.float64 else single
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


@PRECISIONS
@pytest.mark.parametrize("name", ["inner_mamba", "inner_mamba_bias", "inner_mamba_noconvbias"])
def test_inner_function_equals_the_golden_vectors(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    _, arrays = load(golden / "kernels" / f"{name}.npz", dtype)
    inputs = {k[3:]: v.requires_grad_() for k, v in arrays.items() if k.startswith("in.")}
    absent = {k: None for k in ("conv1d_bias", "out_proj_bias") if k not in inputs}
    out = mamba_inner(**inputs, **absent)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    for key, value in inputs.items():
        assert_near(value.grad, arrays[f"grad.{key}"], 1e-12, 1e-5)


@PRECISIONS
@pytest.mark.parametrize("name", ["module_mamba", "module_mamba_alt"])
def test_module_equals_upstream_with_the_same_weights(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    module, arrays = load_module(golden / "kernels" / f"{name}.npz", dtype)
    x = arrays["in.x"].requires_grad_()
    out = module(x)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    assert_near(x.grad, arrays["grad.x"], 1e-12, 1e-5)
    for key, parameter in module.named_parameters():
        assert_near(parameter.grad, arrays[f"grad.sd.{key}"], 1e-12, 1e-5)


@PRECISIONS
@pytest.mark.parametrize("name", ["module_mamba", "module_mamba_alt"])
def test_prefill_and_steps_equal_the_full_sequence(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    module, _ = load_module(golden / "kernels" / f"{name}.npz", dtype)
    meta, arrays = load(golden / "kernels" / f"{name}_step.npz", dtype)
    x, prefill = arrays["in.x"], meta["prefill"]
    cache = module.allocate_cache(len(x))
    with torch.no_grad():
        outputs = [module(x[:, :prefill], cache=cache)]
        assert_near(cache.conv_state, arrays["prefill.conv_state"], 1e-12, 5e-6)
        assert_near(cache.ssm_state, arrays["prefill.ssm_state"], 1e-12, 5e-6)
        for t in range(prefill, x.shape[1]):
            one = x[:, t] if t % 2 else x[:, t : t + 1]
            out = module.step(one, cache)
            assert out.shape == one.shape
            outputs.append(out.view(len(x), 1, -1))
    assert_near(torch.cat(outputs, 1), arrays["out.y_full"], 1e-12, 5e-6)
    assert_near(cache.conv_state, arrays["final.conv_state"], 1e-12, 5e-6)
    assert_near(cache.ssm_state, arrays["final.ssm_state"], 1e-12, 5e-6)


def test_stepping_goes_on_from_each_samples_own_end() -> None:
    module, x = Mamba(8).double(), torch.randn(2, 9, 8, dtype=torch.float64)
    lengths, cache = torch.tensor([6, 2]), module.allocate_cache(2)
    following = torch.stack([x[0, 6], x[1, 2]])
    with torch.no_grad():
        module(x, lengths=lengths, cache=cache)
        out = module.step(following, cache)
        full = module(x)
    torch.testing.assert_close(out, torch.stack([full[0, 6], full[1, 2]]), rtol=0, atol=1e-12)


def test_nan_padding_changes_neither_results_nor_gradients() -> None:
    module = Mamba(8, bias=True).double()
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


@pytest.mark.parametrize("length", [9, 1])
def test_reverse_equals_flip_mamba_flip_with_its_gradients(length: int) -> None:
    module = Mamba(8, bias=True).double()
    x = torch.randn(2, length, 8, dtype=torch.float64, requires_grad=True)
    results = []
    for y in (module(x, reverse=True), module(x.flip(1)).flip(1)):
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)


def test_reverse_starts_at_each_samples_last_valid_step() -> None:
    module, x = Mamba(8).double(), torch.randn(2, 9, 8, dtype=torch.float64)
    out = module(x, lengths=torch.tensor([9, 4]), reverse=True)
    torch.testing.assert_close(out[1:, :4], module(x[1:, :4], reverse=True), rtol=0, atol=1e-12)


def test_a_reverse_mixer_refuses_a_cache() -> None:
    module = Mamba(8)
    with pytest.raises(SuiteError, match="leave the cache out"):
        module(torch.zeros(1, 3, 8), cache=module.allocate_cache(1), reverse=True)


def test_state_dict_has_upstreams_keys() -> None:
    assert set(Mamba(8).state_dict()) == KEYS
    both = set(Mamba(8, bias=True, conv_bias=False).state_dict())
    assert both == KEYS - {"conv1d.bias"} | {"in_proj.bias", "out_proj.bias"}


def test_start_follows_the_paper() -> None:
    module = Mamba(32, d_inner=48, dt_rank=3, dt_min=0.01, dt_max=0.05)
    assert torch.equal(module.A_log[7].exp().round(), torch.arange(1.0, 17))
    assert (module.D == 1).all() and module.D.shape == (48,)
    steps = F.softplus(module.dt_proj.bias)
    assert 0.0099 < steps.min() < 0.02 < steps.max() < 0.0501
    assert module.dt_proj.weight.abs().max() <= 3**-0.5
    constant = Mamba(32, dt_init="constant", dt_scale=0.5).dt_proj
    assert torch.allclose(constant.weight, torch.tensor(0.5 * 2**-0.5))


def test_parameters_without_weight_decay_exist_under_these_names() -> None:
    module = Mamba(8)
    assert module.no_weight_decay() == {"A_log", "D", "dt_proj.bias"}
    assert module.no_weight_decay() <= set(dict(module.named_parameters()))


def test_autocast_keeps_decay_skip_and_state_in_float32() -> None:
    torch.manual_seed(0)
    module, x = Mamba(16), torch.randn(2, 30, 16)
    cache = module.allocate_cache(2)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x, cache=cache)
    assert out.dtype == torch.bfloat16 and cache.ssm_state.dtype == torch.float32
    assert (out - exact).abs().max() < 0.03 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


def test_a_module_cast_to_bfloat16_still_keeps_its_state_wide() -> None:
    module, x = Mamba(16).bfloat16(), torch.randn(2, 12, 16).bfloat16()
    cache = module.allocate_cache(2)
    assert cache.conv_state.dtype == cache.ssm_state.dtype == torch.float32
    with torch.no_grad():
        full = module(x)
        module(x[:, :11], cache=cache)
        last = module.step(x[:, 11], cache)
    assert last.dtype == torch.bfloat16
    assert (last - full[:, 11]).abs().max() < 0.03 * full.abs().max()


def test_the_decay_is_float32_from_narrow_and_float64_from_wide_parameters() -> None:
    assert decay(torch.ones(2, 3).bfloat16()).dtype == torch.float32
    assert decay(torch.ones(2, 3).double()).dtype == torch.float64


def test_copies_and_pickles_compute_the_same() -> None:
    module, x = Mamba(8), torch.randn(1, 5, 8)
    expected = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), expected)


def test_it_compiles_as_one_graph() -> None:
    torch._dynamo.reset()
    module, x = Mamba(8), torch.randn(2, 7, 8)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x))


def test_an_unknown_upstream_key_is_refused_by_naming_the_nearest() -> None:
    with pytest.raises(SuiteError, match="(?s)'d_stat'.*did you mean 'd_state'"):
        Mamba.from_upstream({"d_model": 8, "d_stat": 16})
    assert (
        Mamba.from_upstream({"d_model": 8, "use_fast_path": False, "layer_idx": 3}).D.numel() == 16
    )


def test_wrong_input_and_start_are_named() -> None:
    with pytest.raises(SuiteError, match=r"\(batch, time, 8\)"):
        Mamba(8)(torch.zeros(2, 8, 5))
    with pytest.raises(SuiteError, match="zeros"):
        Mamba(8, dt_init="zeros")
