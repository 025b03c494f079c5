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
from blocks.mambavision import MambaVisionMixer

KEYS = {
    "A_log", "D", "in_proj.weight", "conv1d_x.weight", "conv1d_z.weight", "x_proj.weight",
    "dt_proj.weight", "dt_proj.bias", "out_proj.weight",
}  # fmt: skip
DOUBLE = torch.float64


def assert_near(ours: Tensor, expected: Tensor, double: float, single: float) -> None:
    bound = double if expected.dtype == DOUBLE else single
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("name", ["module_mambavision", "module_mambavision_conv4"])
def test_module_equals_upstream_with_the_same_weights(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    with np.load(golden / "kernels" / f"{name}.npz", allow_pickle=False) as file:
        meta = json.loads(bytes(file["meta"]))
        arrays = {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}
    module = MambaVisionMixer.from_upstream(meta["config"]).to(dtype)
    module.load_state_dict({k[3:]: v for k, v in arrays.items() if k.startswith("sd.")})
    x = arrays["in.x"].requires_grad_()
    out = module(x)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 1e-12, 5e-6)
    assert_near(x.grad, arrays["grad.x"], 1e-12, 1e-5)
    for key, parameter in module.named_parameters():
        assert_near(parameter.grad, arrays[f"grad.sd.{key}"], 1e-12, 1e-5)


def test_the_step_counts_its_bias_twice_as_upstream_does() -> None:
    module, x = MambaVisionMixer(8).double(), torch.randn(1, 1, 8, dtype=DOUBLE)
    with torch.no_grad():
        # What is left of the output is proportional to the step.
        for tensor in (module.D, module.dt_proj.weight, module.out_proj.weight[:, 4:]):
            tensor.zero_()
        module.dt_proj.bias.zero_()
        before = module(x)
        module.dt_proj.bias.fill_(3.0)
        ratio = module(x) / before
    steps = F.softplus(torch.tensor([0.0, 6.0], dtype=DOUBLE))
    torch.testing.assert_close(ratio, (steps[1] / steps[0]).expand_as(ratio))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_convolutions_are_centred_as_in_pytorchs_padding_same(width: int, length: int) -> None:
    module = MambaVisionMixer(8, d_conv=width).double()
    x = torch.randn(2, length, 8, dtype=DOUBLE)
    with torch.no_grad():
        module.out_proj.weight.copy_(torch.eye(8))
        z = module.in_proj(x).mT[:, 4:]
        z = F.silu(F.conv1d(z, module.conv1d_z.weight, groups=4, padding="same"))
        torch.testing.assert_close(module(x)[..., 4:], z.mT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [3, 4])
def test_a_batch_with_nan_padding_equals_each_sample_alone(width: int) -> None:
    module = MambaVisionMixer(8, d_conv=width, bias=True).double()
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


def test_state_dict_has_upstreams_keys() -> None:
    assert set(MambaVisionMixer(8).state_dict()) == KEYS
    biased = set(MambaVisionMixer(8, bias=True).state_dict())
    assert biased == KEYS | {"in_proj.bias", "out_proj.bias"}
    module = MambaVisionMixer.from_upstream({"d_model": 8, "conv_bias": True, "layer_idx": 2})
    assert set(module.state_dict()) == KEYS
    assert module.A_log.shape == (8, 16) and module.conv1d_x.weight.shape == (8, 1, 4)


def test_parameters_without_weight_decay_exist_under_these_names() -> None:
    module = MambaVisionMixer(8)
    assert module.no_weight_decay() == {"A_log", "D", "dt_proj.bias"}
    assert module.no_weight_decay() <= set(dict(module.named_parameters()))


def test_autocast_stays_close_to_float32() -> None:
    torch.manual_seed(0)
    module, x = MambaVisionMixer(16), torch.randn(2, 30, 16)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.03 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


def test_copies_and_pickles_compute_the_same() -> None:
    module, x = MambaVisionMixer(8), torch.randn(1, 5, 8)
    expected = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), expected)


def test_it_compiles_as_one_graph() -> None:
    torch._dynamo.reset()
    module, x = MambaVisionMixer(8), torch.randn(2, 7, 8)
    lengths, parameters = torch.tensor([7, 3]), list(module.parameters())
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x, lengths).square().sum(), parameters)
    theirs = torch.autograd.grad(module(x, lengths).square().sum(), parameters)
    torch.testing.assert_close(ours, theirs)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(SuiteError, match=r"\(batch, time, 8\)"):
        MambaVisionMixer(8)(torch.zeros(2, 8, 5))
    with pytest.raises(SuiteError, match="(?s)even inner width.*= 7.*make dim even"):
        MambaVisionMixer(7)
    with pytest.raises(SuiteError, match="did you mean 'd_state'"):
        MambaVisionMixer.from_upstream({"d_model": 8, "d_stat": 16})
