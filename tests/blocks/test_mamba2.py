import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.errors import SuiteError
from blocks.mamba2 import GatedRMSNorm, Mamba2

KEYS = {
    "A_log", "D", "dt_bias", "in_proj.weight", "conv1d.weight", "conv1d.bias", "norm.weight",
    "out_proj.weight",
}  # fmt: skip
NAMES = ["module_mamba2", "module_mamba2_groups", "module_mamba2_nonorm_dtlimit"]
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
KINDS = pytest.mark.parametrize(
    "kind",
    [
        {},
        {"num_groups": 2, "D_has_head_dim": True, "norm_before_gate": True, "bias": True},
        {"d_ssm": 8, "use_norm": False, "conv_bias": False, "dt_limit": (0.01, 0.1)},
    ],
    ids=["default", "groups", "mlp"],
)


def small(**kind: object) -> Mamba2:
    torch.manual_seed(0)
    return Mamba2(8, **{"d_state": 5, "head_dim": 4, "chunk_size": 4, **kind})


def load(path: Path, dtype: torch.dtype) -> tuple[dict, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(bytes(file["meta"]))
        return meta, {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}


def assert_near(ours: Tensor, expected: Tensor, double: float, single: float) -> None:
    bound = double if expected.dtype == torch.float64 else single
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


@PRECISIONS
@pytest.mark.parametrize("name", NAMES)
def test_module_equals_upstream_with_the_same_weights(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    meta, arrays = load(golden / "kernels" / f"{name}.npz", dtype)
    module = Mamba2.from_upstream(meta["config"]).to(dtype)
    module.load_state_dict({k[3:]: v for k, v in arrays.items() if k.startswith("sd.")})
    module.chunk_size = 4
    x = arrays["in.x"].requires_grad_()
    out = module(x)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    assert_near(x.grad, arrays["grad.x"], 1e-12, 1e-5)
    for key, parameter in module.named_parameters():
        assert_near(parameter.grad, arrays[f"grad.sd.{key}"], 1e-12, 1e-5)


@KINDS
@pytest.mark.parametrize("prefill", [0, 2, 6])
def test_prefill_and_steps_equal_the_full_sequence(kind: dict, prefill: int) -> None:
    module, x = small(**kind).double(), torch.randn(2, 9, 8, dtype=torch.float64)
    cache = module.allocate_cache(2)
    with torch.no_grad():
        outputs = [module(x[:, :prefill], cache=cache)]
        for t in range(prefill, 9):
            one = x[:, t] if t % 2 else x[:, t : t + 1]
            out = module.step(one, cache)
            assert out.shape == one.shape
            outputs.append(out.view(2, 1, 8))
        full = module.allocate_cache(2)
        torch.testing.assert_close(torch.cat(outputs, 1), module(x, cache=full), rtol=0, atol=1e-12)
    torch.testing.assert_close(cache.conv_state, full.conv_state, rtol=0, atol=1e-12)
    torch.testing.assert_close(cache.ssm_state, full.ssm_state, rtol=0, atol=1e-12)


def test_stepping_goes_on_from_each_samples_own_end() -> None:
    module, x = small().double(), torch.randn(2, 9, 8, dtype=torch.float64)
    lengths, cache = torch.tensor([6, 2]), module.allocate_cache(2)
    with torch.no_grad():
        module(x, lengths=lengths, cache=cache)
        out = module.step(torch.stack([x[0, 6], x[1, 2]]), cache)
        full = module(x)
    torch.testing.assert_close(out, torch.stack([full[0, 6], full[1, 2]]), rtol=0, atol=1e-12)


@KINDS
def test_nan_padding_changes_neither_results_nor_gradients(kind: dict) -> None:
    module, x = small(**kind).double(), torch.randn(2, 9, 8, dtype=torch.float64)
    alone = module(x[1:, :4])
    expected = torch.autograd.grad(alone.sum(), list(module.parameters()))
    x[1, 4:] = float("nan")
    x.requires_grad_()
    out = module(x, lengths=torch.tensor([9, 4]))
    torch.testing.assert_close(out[1:, :4], alone, rtol=0, atol=1e-12)
    assert (out[1, 4:] == 0).all()
    ours = torch.autograd.grad(out[1].sum(), [x, *module.parameters()])
    assert (ours[0][1, 4:] == 0).all() and (ours[0][0] == 0).all()
    for a, b in zip(ours[1:], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@KINDS
def test_the_chunk_size_changes_nothing(kind: dict) -> None:
    module, x = small(**kind).double(), torch.randn(2, 13, 8, dtype=torch.float64)
    expected = module(x)
    for chunk_size in (1, 5, 13, 64):
        module.chunk_size = chunk_size
        torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("batch", "length"), [(2, 1), (1, 7), (0, 7), (2, 0)])
def test_any_batch_and_length_work(batch: int, length: int) -> None:
    module = small()
    out = module(torch.zeros(batch, length, 8))
    assert out.shape == (batch, length, 8)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_what_is_not_scanned_is_a_gated_mlp() -> None:
    module, x = small(d_ssm=8).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        module.out_proj.weight[:, 8:] = 0  # The scanned half comes last.
        gate, up = F.linear(x, module.in_proj.weight[:16]).chunk(2, -1)
        expected = F.linear(F.silu(gate) * up, module.out_proj.weight[:, :8])
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_groups_are_normalised_on_their_own(norm_before_gate: bool) -> None:
    y, z = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    norm = GatedRMSNorm(8, 2, norm_before_gate).double()
    torch.nn.init.normal_(norm.weight)
    halves = []
    for a, b, w in zip(y.split(4, -1), z.split(4, -1), norm.weight.split(4), strict=True):
        a = a if norm_before_gate else a * F.silu(b)
        a = F.rms_norm(a, (4,), w, 1e-5)
        halves.append(a * F.silu(b) if norm_before_gate else a)
    torch.testing.assert_close(norm(y, z), torch.cat(halves, -1), rtol=0, atol=1e-12)


def test_state_dict_has_upstreams_keys() -> None:
    assert set(small().state_dict()) == KEYS
    other = small(bias=True, conv_bias=False, use_norm=False)
    assert set(other.state_dict()) == KEYS - {"conv1d.bias", "norm.weight"} | {
        "in_proj.bias", "out_proj.bias",
    }  # fmt: skip
    assert small().no_weight_decay() == {"A_log", "D", "dt_bias"} <= KEYS


def test_start_follows_the_paper() -> None:
    module = Mamba2(512, head_dim=4, dt_min=0.01, dt_max=0.05, conv_init=0.1)
    steps, rates = F.softplus(module.dt_bias), module.A_log.exp()
    assert 0.0099 < steps.min() < 0.011 < 0.045 < steps.max() < 0.0501
    assert 0.99 < rates.min() < 2 and 15 < rates.max() < 16.01
    assert (module.D == 1).all() and module.D.shape == (256,)
    assert 0.09 < module.conv1d.weight.abs().max() <= 0.1
    assert module.in_proj.weight.shape == (2 * 1024 + 2 * 128 + 256, 512)


def test_autocast_keeps_decay_skip_and_state_in_float32() -> None:
    module, x = small(), torch.randn(2, 30, 8)
    cache = module.allocate_cache(2)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x, cache=cache)
    assert out.dtype == torch.bfloat16 and cache.ssm_state.dtype == torch.float32
    assert (out - exact).abs().max() < 0.03 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


def test_a_module_cast_to_bfloat16_still_keeps_its_state_wide() -> None:
    module, x = small().bfloat16(), torch.randn(2, 12, 8).bfloat16()
    cache = module.allocate_cache(2)
    assert cache.conv_state.dtype == cache.ssm_state.dtype == torch.float32
    with torch.no_grad():
        full = module(x)
        module(x[:, :11], cache=cache)
        last = module.step(x[:, 11], cache)
    assert last.dtype == full.dtype == torch.bfloat16
    assert (last - full[:, 11]).abs().max() < 0.03 * full.abs().max()


def test_copies_and_pickles_compute_the_same() -> None:
    module, x = small(), torch.randn(1, 5, 8)
    expected = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), expected)


@KINDS
def test_it_compiles_as_one_graph(kind: dict) -> None:
    torch._dynamo.reset()
    module, x = small(**kind), torch.randn(2, 7, 8)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x).square().sum(), list(module.parameters()))
    theirs = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_wrong_sizes_input_and_keys_are_named() -> None:
    with pytest.raises(SuiteError, match=r"(?s)64 \* 1.*16 scanned channels"):
        Mamba2(8)
    with pytest.raises(SuiteError, match="num_groups"):
        small(num_groups=3)
    with pytest.raises(SuiteError, match="(?s)between 4 and.*16.*d_ssm=20"):
        small(d_ssm=20)
    with pytest.raises(SuiteError, match=r"\(batch, time, 8\)"):
        small()(torch.zeros(2, 8, 5))
    with pytest.raises(SuiteError, match="did you mean 'headdim'"):
        Mamba2.from_upstream({"d_model": 64, "head_dim": 32})
    config = {"d_model": 64, "chunk_size": 256, "use_mem_eff_path": False, "layer_idx": 3}
    assert Mamba2.from_upstream(config).D.numel() == 2
