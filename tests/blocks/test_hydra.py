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
from blocks.hydra import Hydra

KEYS = {
    "A_log", "D", "dt_bias", "fc_D.weight", "in_proj.weight", "conv1d.weight", "conv1d.bias",
    "norm.weight", "out_proj.weight",
}  # fmt: skip
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
KINDS = pytest.mark.parametrize(
    "kind",
    [{}, {"num_groups": 2, "learnable_init_states": True, "bias": True, "d_conv": 3}],
    ids=["default", "all"],
)


def small(**kind: object) -> Hydra:
    torch.manual_seed(0)
    module = Hydra(8, **{"d_state": 5, "head_dim": 4, "chunk_size": 4, **kind})
    if module.init_states is not None:
        torch.nn.init.normal_(module.init_states)
    return module


def assert_near(ours: Tensor, expected: Tensor, double: float, single: float) -> None:
    bound = double if expected.dtype == torch.float64 else single
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


@PRECISIONS
@pytest.mark.parametrize("chunk_size", [4, 64])
def test_module_equals_upstream_with_the_same_weights(
    golden: Path, dtype: torch.dtype, chunk_size: int
) -> None:
    with np.load(golden / "kernels" / "module_hydra.npz", allow_pickle=False) as file:
        config = json.loads(bytes(file["meta"]))["config"]
        arrays = {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}
    module = Hydra.from_upstream(config).to(dtype)
    module.load_state_dict({k[3:]: v for k, v in arrays.items() if k.startswith("sd.")})
    module.chunk_size = chunk_size
    x = arrays["in.x"].requires_grad_()
    out = module(x)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    assert_near(x.grad, arrays["grad.x"], 1e-12, 1e-5)
    for key, parameter in module.named_parameters():
        assert_near(parameter.grad, arrays[f"grad.sd.{key}"], 1e-12, 1e-5)


@KINDS
def test_swapping_the_directions_flips_the_output(kind: dict) -> None:
    module, x = small(**kind).double(), torch.randn(2, 11, 8, dtype=torch.float64)
    inner, convolved, steps = module.sizes
    BC, heads = (convolved - inner) // 2, steps // 2

    def swapped(v: Tensor, sizes: list[int], order: list[int]) -> Tensor:
        parts = v.split(sizes)
        return torch.cat([parts[i] for i in order])

    other, state = copy.deepcopy(module), module.state_dict()
    for name in {"in_proj.weight", "in_proj.bias"} & set(state):
        rows = [inner, inner, BC, BC, heads, heads]
        state[name] = swapped(state[name], rows, [0, 1, 3, 2, 5, 4])
    for name in ("conv1d.weight", "conv1d.bias"):
        state[name] = swapped(state[name], [inner, BC, BC], [0, 2, 1])
    state["conv1d.weight"] = state["conv1d.weight"].flip(-1)
    other.load_state_dict(state)
    torch.testing.assert_close(other(x.flip(1)).flip(1), module(x), rtol=0, atol=1e-12)


@KINDS
def test_it_is_a_quasi_separable_matrix(kind: dict) -> None:
    """Applied step by step: C_i (decay) B_j dt_j x_j off the diagonal, delta_i x_i on it."""
    module, u = small(**kind | {"learnable_init_states": False}).double(), torch.randn(2, 6, 8)
    u = u.double()
    inner, convolved, _ = module.sizes
    heads, groups, states = module.D.shape[0], module.num_groups, 5
    z, xBC, dt = module.in_proj(u).split(module.sizes, dim=-1)
    weight = module.conv1d.weight
    xBC = F.conv1d(xBC.mT, weight, module.conv1d.bias, padding="same", groups=convolved).mT
    x, *BC = F.silu(xBC).split([inner] + 4 * [groups * states], dim=-1)
    x = x.unflatten(-1, (heads, -1))
    B, C, B_b, C_b = (
        v.unflatten(-1, (groups, -1)).repeat_interleave(heads // groups, 2) for v in BC
    )
    dt, dt_b = F.softplus(dt.unflatten(-1, (2, heads)) + module.dt_bias).unbind(2)
    A = -module.A_log.exp()
    rows = []
    for i in range(6):
        row = (F.linear(x[:, i].flatten(1), module.fc_D.weight) + module.D).unsqueeze(-1) * x[:, i]
        for j in range(6):
            if j < i:  # The scan up to i - 1 sees j, and step i reads it.
                decay = (dt[:, j + 1 : i].sum(1) * A).exp()
                scale = decay * dt[:, j] * (C[:, i - 1] * B[:, j]).sum(-1)
            elif j > i:
                decay = (dt_b[:, i + 1 : j].sum(1) * A).exp()
                scale = decay * dt_b[:, j] * (C_b[:, i + 1] * B_b[:, j]).sum(-1)
            else:
                continue
            row = row + scale.unsqueeze(-1) * x[:, j]
        rows.append(row.flatten(1))
    y = F.rms_norm(torch.stack(rows, 1), (inner,), module.norm.weight, 1e-5) * F.silu(z)
    torch.testing.assert_close(module(u), module.out_proj(y), rtol=0, atol=1e-12)


@KINDS
def test_nan_padding_changes_neither_results_nor_gradients(kind: dict) -> None:
    module, x = small(**kind).double(), torch.randn(3, 9, 8, dtype=torch.float64)
    alone = module(x[1:2, :4])
    expected = torch.autograd.grad(alone.sum(), list(module.parameters()))
    x[1, 4:], x[2] = float("nan"), float("nan")
    x.requires_grad_()
    out = module(x, lengths=torch.tensor([9, 4, 0]))
    torch.testing.assert_close(out[1:2, :4], alone, rtol=0, atol=1e-12)
    assert (out[1, 4:] == 0).all() and (out[2] == 0).all()
    ours = torch.autograd.grad(out[1].sum(), [x, *module.parameters()])
    assert (ours[0][1, 4:] == 0).all() and (ours[0][[0, 2]] == 0).all()
    for a, b in zip(ours[1:], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_every_step_sees_past_and_future() -> None:
    module, x = small(d_conv=1), torch.randn(1, 9, 8, requires_grad=True)
    module(x)[0, 4].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).all()


@KINDS
@pytest.mark.parametrize(("batch", "length"), [(2, 1), (1, 7), (0, 7), (2, 0)])
def test_any_batch_and_length_work(batch: int, length: int, kind: dict) -> None:
    module = small(**kind)
    out = module(torch.randn(batch, length, 8))
    assert out.shape == (batch, length, 8)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_state_dict_has_upstreams_keys() -> None:
    assert set(small().state_dict()) == KEYS
    other = small(bias=True, conv_bias=False, learnable_init_states=True)
    assert set(other.state_dict()) == KEYS - {"conv1d.bias"} | {
        "in_proj.bias", "out_proj.bias", "init_states",
    }  # fmt: skip
    assert small().no_weight_decay() == {"A_log", "D", "dt_bias"}
    assert other.no_weight_decay() == {"A_log", "D", "dt_bias", "init_states"}


def test_start_follows_upstream() -> None:
    module = Hydra(512, head_dim=4, dt_min=0.01, dt_max=0.05, learnable_init_states=True)
    steps = F.softplus(module.dt_bias)
    assert 0.0099 < steps.min() < 0.011 < 0.045 < steps.max() < 0.0501
    assert (module.A_log == 0).all() and (module.D == 1).all() and (module.init_states == 0).all()
    assert module.init_states.shape == (256, 4, 64)


def test_autocast_stays_close_to_float32() -> None:
    module, x = small(), torch.randn(2, 30, 8)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.03 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


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
    with pytest.raises(SuiteError, match="(?s)an odd width.*d_conv=4"):
        small(d_conv=4)
    with pytest.raises(SuiteError, match=r"(?s)64 \* 1.*16 scanned channels"):
        Hydra(8)
    with pytest.raises(SuiteError, match=r"\(batch, time, 8\)"):
        small()(torch.zeros(2, 8, 5))
    with pytest.raises(SuiteError, match="did you mean 'd_state'"):
        Hydra.from_upstream({"d_model": 64, "d_stat": 32})
