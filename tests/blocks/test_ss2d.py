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
from blocks.scan.dispatch import selective_scan
from blocks.ss2d import SS2D

GOLDEN = ["v0", "v01_z", "v05_noz_cf", "v05_noz_cl", "v052d_bidi"]
VERSIONS = ["v0", "v01", "v02", "v03", "v04", "v05", "v051d", "v052d", "v052dc", "v2", "v3"]
SUFFIXED = [
    f"v05_{suffixes}"
    for suffixes in (
        "no32", "oact", "noz", "nozact", "onnone", "onsoftmax", "onsigmoid", "ondwconv3",
        "oncnorm", "onsoftmax_noz_oact_no32",
    )
]  # fmt: skip
MODES = {"cross": 0, "forward": 1, "both ways": 2}


def load(path: Path) -> tuple[dict, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(bytes(file["meta"]))
        return meta, {k: torch.from_numpy(file[k]) for k in file if k != "meta"}


def assert_near(ours: Tensor, expected: Tensor, bound: float) -> None:
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


def cross_scan(x: Tensor, mode: str) -> Tensor:
    """(B, C, H, W) to (B, 4, C, L): a copy of the grid per direction, in walking order."""
    rows, columns = x.flatten(2), x.mT.flatten(2)
    return {
        "cross": torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], 1),
        "forward": torch.stack([rows] * 4, 1),
        "both ways": torch.stack([rows, rows, rows.flip(-1), rows.flip(-1)], 1),
    }[mode]


def cross_merge(ys: Tensor, mode: str, height: int, width: int) -> Tensor:
    """(B, 4, C, L) to (B, C, L): the sum, every direction turned back."""
    back = [ys[:, 0], ys[:, 1], ys[:, 2].flip(-1), ys[:, 3].flip(-1)]
    if mode == "cross":
        back = [y if k in (0, 2) else y.unflatten(-1, (width, height)) for k, y in enumerate(back)]
        back = [y if k in (0, 2) else y.mT.flatten(2) for k, y in enumerate(back)]
    return ys.sum(1) if mode == "forward" else sum(back)


def grouped_scan(module: SS2D, xs: Tensor, own: slice) -> Tensor:
    """One scan with a group per direction, (B, K, D, L) to the same."""
    states, rank = module.A_logs.shape[1], module.dt_projs_weight.shape[2]
    x_dbl = torch.einsum("bkdl,kcd->bkcl", xs, module.x_proj_weight[own])
    dts, B, C = x_dbl.split([rank, states, states], dim=2)
    dts = torch.einsum("bkrl,kdr->bkdl", dts, module.dt_projs_weight[own])
    A = -module.A_logs.exp().unflatten(0, (4, -1))[own].flatten(0, 1)
    D, bias = module.Ds.view(4, -1)[own].flatten(), module.dt_projs_bias[own].flatten()
    ys = selective_scan(xs.flatten(1, 2), dts.flatten(1, 2), A, B, C, D, None, bias, True)
    return ys.view(xs.shape)


def naive_cascade(module: SS2D, x: Tensor) -> Tensor:
    """(B, D, H, W); as upstream, without turning the backward scans round again."""

    def lines(x: Tensor, own: slice) -> Tensor:
        x = F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)
        y = torch.empty_like(x)
        for row in range(x.shape[2]):
            xs = torch.stack([x[:, :, row], x[:, :, row].flip(-1)], 1)
            y[:, :, row] = grouped_scan(module, xs, own).sum(1)
        return y

    return lines(lines(x, slice(0, 2)).mT, slice(2, 4)).mT


def naive(module: SS2D, x: Tensor, form: str) -> Tensor:
    """The mixer written with four flipped and transposed copies, (B, H, W, E) to the same."""
    version, *suffixes = form.split("_")
    x = module.in_proj(x)
    if "noz" not in suffixes:
        x, z = x.chunk(2, -1)
        z = z if "nozact" in suffixes else F.silu(z)
    x = x.movedim(-1, 1)
    weight, bias = module.conv2d.weight, module.conv2d.bias
    x = F.silu(F.conv2d(x, weight, bias, padding=1, groups=len(weight)))
    if version == "v052dc":
        y = naive_cascade(module, x)
    else:
        mode = {"v051d": "forward", "v052d": "both ways"}.get(version, "cross")
        ys = grouped_scan(module, cross_scan(x, mode), slice(0, 4))
        y = cross_merge(ys, mode, *x.shape[2:]).view(x.shape)
    state = dict(module.named_parameters())
    if "ondwconv3" in suffixes:
        y = F.conv2d(y, state["out_norm.1.weight"], padding=1, groups=y.shape[1])
    elif "onsoftmax" in suffixes:
        y = y.flatten(2).softmax(-1).view(y.shape)
    elif "onsigmoid" in suffixes:
        y = y.sigmoid()
    elif "onnone" not in suffixes:
        key = "out_norm.0" if "oncnorm" in suffixes else "out_norm"
        weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
        y = F.layer_norm(y.movedim(1, -1), weight.shape, weight, bias).movedim(-1, 1)
        if "oncnorm" in suffixes:
            y = F.conv2d(y, state["out_norm.2.weight"], padding=1, groups=y.shape[1])
    y = y.movedim(1, -1)
    y = F.gelu(y) if "oact" in suffixes else y
    return module.out_proj(y if "noz" in suffixes else y * z)


def perturbed(module: SS2D) -> SS2D:
    """With double weights of which none is trivial."""
    for parameter in module.double().parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return module


@pytest.mark.parametrize("name", ["cross_scan_merge", "cross_scan_merge_row"])
@pytest.mark.parametrize("mode", MODES)
def test_the_naive_reference_walks_as_vmamba_does(golden: Path, name: str, mode: str) -> None:
    _, arrays = load(golden / "kernels" / f"{name}.npz")
    code, (height, width) = MODES[mode], arrays["in.x"].shape[2:]
    assert torch.equal(cross_scan(arrays["in.x"], mode), arrays[f"out.scan{code}"])
    merged = cross_merge(arrays[f"in.ys{code}"].flatten(3), mode, height, width)
    assert_near(merged, arrays[f"out.merge{code}"], 1e-15)


@pytest.mark.parametrize("name", GOLDEN)
def test_module_equals_vmamba_with_the_same_weights(golden: Path, name: str) -> None:
    meta, arrays = load(golden / "kernels" / f"module_ss2d_{name}.npz")
    module = SS2D.from_upstream(meta["config"])
    module.load_state_dict({k[3:]: v for k, v in arrays.items() if k.startswith("sd.")})
    x = arrays["in.x"].requires_grad_()
    out = module(x)
    out.backward(arrays["gout.y"])
    assert_near(out, arrays["out.y"], 2e-5)
    assert_near(x.grad, arrays["grad.x"], 1e-4)
    for key, parameter in module.named_parameters():
        assert_near(parameter.grad, arrays[f"grad.sd.{key}"], 1e-4)


@pytest.mark.parametrize("form", VERSIONS + SUFFIXED)
def test_every_form_equals_the_naive_reference(form: str) -> None:
    torch.manual_seed(0)
    module = perturbed(SS2D(6, d_state=2, forward_type=form))
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    out, expected = module(x), naive(module, x, form)
    assert_near(out, expected, 1e-12)
    wanted, weight = [x, *module.parameters()], torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), wanted) for y in (out, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert_near(a, b, 1e-11)


@pytest.mark.parametrize("form", ["v05", "v052dc_noz"])
@pytest.mark.parametrize("grid", [(1, 5), (5, 1), (1, 1), (2, 7)])
def test_grids_of_one_row_or_column_equal_the_naive_reference(
    form: str, grid: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    module = perturbed(SS2D(6, d_state=1, forward_type=form))
    x = torch.randn(2, *grid, 6, dtype=torch.float64)
    assert_near(module(x), naive(module, x, form), 1e-12)


@pytest.mark.parametrize("form", ["v05", "v052dc", "v05_onsoftmax"])
def test_an_empty_batch_gives_an_empty_batch(form: str) -> None:
    module = SS2D(6, forward_type=form)
    x = torch.randn(0, 3, 4, 6, requires_grad=True)
    out = module(x)
    out.sum().backward()
    assert out.shape == x.grad.shape == (0, 3, 4, 6)


@pytest.mark.parametrize("form", ["v03", "v052dc_noz", "v05_oncnorm", "v05_ondwconv3_noz"])
def test_channel_first_permutes_the_axes_only(form: str) -> None:
    last, first = (SS2D(6, forward_type=form, channel_first=c).double() for c in (False, True))
    first.load_state_dict(last.state_dict())
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    out = first(x.permute(0, 3, 1, 2).contiguous())
    torch.testing.assert_close(out.permute(0, 2, 3, 1), last(x), rtol=0, atol=1e-12)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("form", ["v05", "v05_noz"])
def test_channels_stay_last_in_memory_around_the_scan(form: str) -> None:
    module, seen = SS2D(8, d_state=4, forward_type=form), []
    module.conv2d.register_forward_hook(lambda _, __, output: seen.append(output))
    module.out_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.randn(2, 5, 6, 8))
    assert [tensor.is_contiguous() for tensor in seen] == [True, True]


@pytest.mark.parametrize("form", VERSIONS + SUFFIXED + ["v02_no32"])
def test_autocast_stays_close_to_float32(form: str) -> None:
    torch.manual_seed(0)
    module, x = SS2D(16, forward_type=form), torch.randn(2, 5, 6, 16)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.04 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


@pytest.mark.parametrize(("form", "dtype"), [("v05", torch.float32), ("v02_no32", torch.bfloat16)])
def test_the_scan_is_normalised_before_it_is_rounded(form: str, dtype: torch.dtype) -> None:
    module, seen = SS2D(8, forward_type=form), []
    module.out_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        module(torch.randn(1, 3, 3, 8))
    assert seen == [dtype]


@pytest.mark.parametrize("form", ["v05", "v052dc", "v05_oncnorm", "v05_ondwconv3"])
def test_sixteen_bit_weights_work_outside_autocast(form: str) -> None:
    torch.manual_seed(0)
    module, x = SS2D(16, forward_type=form), torch.randn(2, 5, 6, 16)
    exact = module(x)
    out = module.bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("form", ["v05", "v052dc_noz"])
def test_every_position_sees_every_other(form: str) -> None:
    module, x = SS2D(8, forward_type=form), torch.randn(1, 5, 6, 8, requires_grad=True)
    module(x)[0, 2, 3].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).all()


def test_state_dict_has_vmambas_keys() -> None:
    scan = {"x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"}
    linear = {"in_proj.weight", "out_proj.weight"}
    norm, conv = {"out_norm.weight", "out_norm.bias"}, {"conv2d.weight", "conv2d.bias"}
    module = SS2D(8, forward_type="v0")
    assert set(module.state_dict()) == scan | linear | norm | conv
    assert {k: tuple(v.shape) for k, v in module.state_dict().items() if k in scan} == {
        "x_proj_weight": (4, 33, 16),
        "dt_projs_weight": (4, 16, 1),
        "dt_projs_bias": (4, 16),
        "A_logs": (64, 16),
        "Ds": (64,),
    }
    module = SS2D(8, forward_type="v05_noz_onnone", d_conv=-1, bias=True)
    assert set(module.state_dict()) == scan | linear | {"in_proj.bias", "out_proj.bias"}
    module = SS2D(8, forward_type="v05_ondwconv3", conv_bias=False)
    assert set(module.state_dict()) == scan | linear | {"conv2d.weight", "out_norm.1.weight"}
    module = SS2D(8, forward_type="v05_oncnorm")
    cnorm = {"out_norm.0.weight", "out_norm.0.bias", "out_norm.2.weight"}
    assert set(module.state_dict()) == scan | linear | conv | cnorm
    assert module.no_weight_decay() < scan


def test_weights_of_a_pointwise_convolution_load() -> None:
    module, x = SS2D(8, forward_type="v05_noz", channel_first=True), torch.randn(1, 8, 3, 4)
    state = {
        k: v[:, :, None, None] if k in ("in_proj.weight", "out_proj.weight") else v
        for k, v in module.state_dict().items()
    }
    twin = SS2D(8, forward_type="v05_noz", channel_first=True)
    twin.load_state_dict(state)
    assert torch.equal(twin(x), module(x))
    assert state["in_proj.weight"].dim() == 4


def test_the_scan_starts_as_asked() -> None:
    module = SS2D(32, d_state=4)
    steps = F.softplus(module.dt_projs_bias)
    assert 0.00099 < steps.min() < steps.max() < 0.101
    assert not torch.equal(steps[0], steps[1])
    assert torch.allclose(module.A_logs.exp(), torch.arange(1.0, 5).expand(256, 4))
    drawn = SS2D(32, d_state=4, initialize="v1")
    assert 0.8 < drawn.A_logs.std() < 1.2
    assert 0.08 < drawn.dt_projs_bias.std() < 0.12
    flat = SS2D(32, initialize="v2")
    assert (flat.A_logs == 0).all()
    assert 0 <= flat.dt_projs_weight.min() < flat.dt_projs_weight.max() <= 0.1
    assert all((m.Ds == 1).all() for m in (module, drawn, flat))


def test_v0_of_upstream_ignores_what_upstream_ignores() -> None:
    config = {"d_model": 8, "forward_type": "v0", "conv_bias": False, "d_conv": 5, "bias": True}
    module = SS2D.from_upstream(config)
    assert set(module.state_dict()) == set(SS2D(8, forward_type="v0").state_dict())
    assert module.conv2d.weight.shape[-1] == 3


def test_copies_and_pickles_compute_the_same() -> None:
    module, x = SS2D(8, forward_type="v05_oncnorm"), torch.randn(1, 3, 4, 8)
    expected = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), expected)


@pytest.mark.parametrize(("form", "first"), [("v05_noz", True), ("v01", False), ("v052dc", False)])
def test_it_compiles_as_one_graph(form: str, first: bool) -> None:
    torch._dynamo.reset()
    module = SS2D(4, d_state=2, forward_type=form, channel_first=first)
    x = torch.randn(2, 4, 3, 4)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x).square().sum(), list(module.parameters()))
    theirs = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("v06_noz", "'v06' in 'v06_noz'"),
        ("v05_nooz", "(?s)'nooz'.*did you mean 'noz'"),
        ("v05_noz_nozact", "one of _noz and _nozact"),
        ("v05_onnone_onsoftmax", "one output norm"),
        ("v05_noz_noz", "each suffix once"),
        ("v0_noz", "v01 is the same"),
    ],
)
def test_unknown_forms_are_refused(form: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        SS2D(8, forward_type=form)


def test_bad_input_is_refused() -> None:
    with pytest.raises(SuiteError, match=r"\(batch, height, width, 8\)"):
        SS2D(8)(torch.randn(1, 8, 3, 4))
    with pytest.raises(SuiteError, match=r"\(batch, 8, height, width\)"):
        SS2D(8, channel_first=True)(torch.randn(1, 12, 8))
    with pytest.raises(SuiteError, match="d_conv=4"):
        SS2D(8, d_conv=4)
    with pytest.raises(SuiteError, match="v0, v1, v2"):
        SS2D(8, initialize="v3")
    with pytest.raises(SuiteError, match="did you mean 'ssm_ratio'"):
        SS2D.from_upstream({"d_model": 8, "ssm_ration": 2})
    with pytest.raises(SuiteError, match="torch.nn.SiLU"):
        SS2D.from_upstream({"d_model": 8, "act_layer": torch.nn.GELU})
