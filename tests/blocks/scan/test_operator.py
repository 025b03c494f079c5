import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks import selective_scan
from blocks.scan import backends

Inputs = dict[str, Tensor]
STREAMS = ("u", "delta", "z", "B", "C")
GOLDEN = Path(__file__).parents[2] / "golden" / "kernels"
FILES = sorted(path.stem for path in GOLDEN.glob("sscan_*.npz"))
DOUBLE = [name for name in FILES if name not in ("sscan_f32_long", "sscan_bf16_io")]


@pytest.fixture(autouse=True, params=list(backends.BACKENDS))
def _backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test of this file once per backend, as if it were the best one."""
    known = backends.BACKENDS
    names = dict.fromkeys((request.param, "reference"))
    monkeypatch.setattr(backends, "BACKENDS", {name: known[name] for name in names})


def relative_error(ours: Tensor, expected: Tensor) -> float:
    wide = torch.complex128 if expected.is_complex() else torch.float64
    difference = (ours.detach().to(wide) - expected.to(wide)).abs().max()
    return float(difference / expected.abs().max().clamp_min(1e-300))


def load(path: Path, dtype: torch.dtype) -> tuple[dict, Inputs, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(bytes(file["meta"]))
        arrays = {key: torch.from_numpy(file[key]) for key in file if key != "meta"}
    inputs = {
        key[3:]: value.to(dtype.to_complex() if value.is_complex() else dtype).requires_grad_()
        for key, value in arrays.items()
        if key.startswith("in.")
    }
    return meta, inputs, arrays


def make(
    batch: int = 2, channels: int = 5, length: int = 37, states: int = 3, groups: int | None = None
) -> Inputs:
    rng = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=rng).requires_grad_()

    factor = (batch, states, length) if groups is None else (batch, groups, states, length)
    return {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length),
        "A": (-normal(channels, states).detach().exp()).requires_grad_(),
        "B": normal(*factor),
        "C": normal(*factor),
        "D": normal(channels),
        "z": normal(batch, channels, length),
        "delta_bias": normal(channels),
    }


def naive(inputs: Inputs, steps: range | None = None) -> tuple[Tensor, Tensor]:
    """The formulas of the paper, one sample and step at a time, differentiated by autograd."""
    u, delta, A, B, C, D, z, bias = inputs.values()
    batch, channels, length = u.shape
    s = F.softplus(delta + bias[:, None])
    per_channel = channels // (B.shape[1] if B.dim() == 4 else 1)
    B, C = (v if v.dim() == 4 else v[:, None] for v in (B, C))
    B, C = (v.repeat_interleave(per_channel, dim=1) for v in (B, C))
    h = u.new_zeros(batch, channels, A.shape[1])
    y: list[Tensor] = [u[..., 0]] * length
    for t in steps or range(length):
        h = torch.exp(s[:, :, t, None] * A) * h + (s * u)[:, :, t, None] * B[..., t]
        y[t] = (h * C[..., t]).sum(-1)
    return (torch.stack(y, -1) + D[:, None] * u) * F.silu(z), h


def gradients(outputs: tuple[Tensor, ...], inputs: Inputs) -> list[Tensor]:
    """Gradients of a sum weighted by smooth, unequal weights."""
    total = sum(
        (out * torch.linspace(-1, 2, out.numel()).view(out.shape).cos()).sum() for out in outputs
    )
    return list(torch.autograd.grad(total, list(inputs.values())))


def flipped(inputs: Inputs) -> Inputs:
    return {
        name: value.detach().flip(-1).requires_grad_() if name in STREAMS else value
        for name, value in inputs.items()
    }


def test_every_published_vector_is_here() -> None:
    assert len(FILES) == 17


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, torch.float64) for n in DOUBLE]
    + [(n, torch.float32) for n in FILES if n != "sscan_bf16_io"],
)
def test_outputs_states_and_gradients_equal_the_golden_vectors(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    meta, inputs, arrays = load(golden / "kernels" / f"{name}.npz", dtype)
    out, last = selective_scan(
        **inputs, delta_softplus=meta["delta_softplus"], return_last_state=True
    )
    out.backward(arrays["gout.y"].to(dtype))
    forward, backward = (1e-12, 1e-12) if dtype == torch.float64 else (5e-6, 1e-5)
    assert relative_error(out, arrays["out.y"]) < forward
    assert relative_error(last, arrays["out.last_state"]) < forward
    for key, value in inputs.items():
        assert relative_error(value.grad, arrays[f"grad.{key}"]) < backward, key


def test_bfloat16_streams_keep_a_float32_state(golden: Path) -> None:
    _, inputs, arrays = load(golden / "kernels" / "sscan_bf16_io.npz", torch.float32)
    for name in STREAMS:
        inputs[name] = inputs[name].detach().bfloat16().requires_grad_()
    out, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    out.backward(arrays["gout.y"].bfloat16())
    assert out.dtype == torch.bfloat16 and last.dtype == torch.float32
    assert relative_error(out, arrays["out.y"]) < 1e-2
    # The streams are exact in bfloat16: a state kept in 16 bits would be off by 1e-2.
    assert relative_error(last, arrays["out.last_state"]) < 1e-6
    for key, value in inputs.items():
        assert value.grad.dtype == value.dtype
        assert relative_error(value.grad, arrays[f"grad.{key}"]) < 1e-2, key


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"length": 1},
        {"length": 16},
        {"length": 33, "batch": 1},
        {"channels": 18, "groups": 3},
        {"channels": 4, "groups": 4},
        {"channels": 1, "states": 1},
    ],
    ids=str,
)
def test_scan_and_its_gradient_equal_a_naive_loop(sizes: dict[str, int], reverse: bool) -> None:
    inputs = make(**sizes)
    length = inputs["u"].shape[-1]
    expected = naive(inputs, range(length - 1, -1, -1) if reverse else range(length))
    ours = selective_scan(**inputs, delta_softplus=True, return_last_state=True, reverse=reverse)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    # Both outputs weigh in, so the gradient through the last state is covered.
    for a, b in zip(gradients(ours, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_gradient_flows_through_the_last_state_alone() -> None:
    inputs = make(length=20)
    del inputs["z"], inputs["D"], inputs["C"]
    constant = torch.ones(5, 3, dtype=torch.float64)
    _, last = selective_scan(**inputs, C=constant, delta_softplus=True, return_last_state=True)
    full = make(length=20)
    _, expected = naive(full)
    names = ("u", "delta", "A", "B", "delta_bias")
    ours = torch.autograd.grad(last.square().sum(), [inputs[n] for n in names])
    theirs = torch.autograd.grad(expected.square().sum(), [full[n] for n in names])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_reverse_scan_equals_flip_scan_flip() -> None:
    inputs = make()
    mirrored = flipped(inputs)
    ours, last = selective_scan(**inputs, reverse=True, return_last_state=True)
    theirs, expected_last = selective_scan(**mirrored, return_last_state=True)
    torch.testing.assert_close(ours, theirs.flip(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last, expected_last, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view(ours.shape)
    grads = torch.autograd.grad((ours * weights).sum(), list(inputs.values()))
    mirrored_grads = torch.autograd.grad((theirs * weights.flip(-1)).sum(), list(mirrored.values()))
    for name, a, b in zip(inputs, grads, mirrored_grads, strict=True):
        b = b.flip(-1) if name in STREAMS else b
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("variable", [(True, False), (False, True), (True, True), (False, False)])
def test_gradcheck(complex_: bool, reverse: bool, variable: tuple[bool, bool]) -> None:
    inputs = make(batch=2, channels=4, length=18, states=2, groups=2)
    rng = torch.Generator().manual_seed(0)
    number = torch.complex128 if complex_ else torch.float64
    if complex_:
        phase = torch.randn(4, 2, dtype=torch.float64, generator=rng)
        inputs["A"] = torch.complex(inputs["A"].detach(), phase).requires_grad_()
    for name, varies in zip("BC", variable, strict=True):
        shape = (2, 2, 2, 36 if complex_ else 18) if varies else (4, 2)
        kind = torch.float64 if varies else number
        inputs[name] = torch.randn(shape, dtype=kind, generator=rng).requires_grad_()
    lengths = torch.tensor([18, 13])

    def scan(*values: Tensor) -> tuple[Tensor, Tensor]:
        arguments = dict(zip(inputs, values, strict=True))
        return selective_scan(
            **arguments,
            delta_softplus=True,
            return_last_state=True,
            reverse=reverse,
            lengths=lengths,
        )

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()), fast_mode=True)


@pytest.mark.parametrize("garbage", [0.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
def test_a_sample_does_not_depend_on_its_padding(
    garbage: float, reverse: bool, softplus: bool
) -> None:
    inputs = make(batch=3, length=21)
    if not softplus:
        inputs["delta"] = (
            inputs["delta"].detach().abs() + inputs["delta_bias"].abs().max()
        ).detach()
        inputs["delta"].requires_grad_()
    lengths = torch.tensor([21, 9, 0])
    padded = {}
    for name, value in inputs.items():
        value = value.detach().clone()
        if name in STREAMS:
            for sample, length in enumerate(lengths.tolist()):
                value[sample, ..., length:] = garbage
        padded[name] = value.requires_grad_()
    flags = {"delta_softplus": softplus, "return_last_state": True, "reverse": reverse}
    out, last = selective_scan(**padded, **flags, lengths=lengths)
    seed = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    grads = dict(
        zip(
            padded,
            torch.autograd.grad(((out * seed).sum(), last.sum()), list(padded.values())),
            strict=True,
        )
    )

    shared: dict[str, Tensor] = {}
    for sample, length in enumerate(lengths.tolist()):
        alone = {
            name: (
                value.detach()[sample : sample + 1, ..., :length]
                if name in STREAMS
                else value.detach()
            ).requires_grad_()
            for name, value in inputs.items()
        }
        out_alone, last_alone = selective_scan(**alone, **flags)
        torch.testing.assert_close(out[sample, :, :length], out_alone[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(last[sample], last_alone[0], rtol=0, atol=1e-12)
        assert (out[sample, :, length:] == 0).all()
        total = (out_alone * seed[sample, :, :length]).sum() + last_alone.sum()
        for name, grad in zip(alone, torch.autograd.grad(total, list(alone.values())), strict=True):
            if name in STREAMS:
                torch.testing.assert_close(
                    grads[name][sample, ..., :length], grad[0], rtol=0, atol=1e-10
                )
                assert (grads[name][sample, ..., length:] == 0).all(), name
            else:
                shared[name] = shared.get(name, 0) + grad
    for name, grad in shared.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0)])
def test_empty_batches_and_sequences_have_empty_results(batch: int, length: int) -> None:
    inputs = make(batch=batch, length=length)
    out, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    assert out.shape == (batch, 5, length)
    assert last.shape == (batch, 5, 3) and (last == 0).all()
    (out.sum() + last.sum()).backward()
    assert all((value.grad == 0).all() for value in inputs.values())


def test_strides_do_not_matter() -> None:
    inputs = make(length=19)
    flags = {"delta_softplus": True, "return_last_state": True}
    expected = gradients(selective_scan(**inputs, **flags), inputs)
    strided = {}
    for name, value in inputs.items():
        wide = value.detach().repeat_interleave(2, dim=-1)[..., ::2]
        strided[name] = (wide.mT.contiguous().mT if wide.dim() > 1 else wide).requires_grad_()
    assert not strided["u"].is_contiguous() and not strided["B"].is_contiguous()
    ours = gradients(selective_scan(**strided, **flags), strided)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_decay_that_underflows_leaves_finite_gradients() -> None:
    inputs = {name: value.detach().float().requires_grad_() for name, value in make().items()}
    inputs["A"] = torch.full((5, 3), -1e4, requires_grad=True)
    out = selective_scan(**inputs, delta_softplus=True)
    out.square().sum().backward()
    assert all(value.grad.isfinite().all() for value in inputs.values())
    # Nothing is remembered: each step is that of a sequence of length one.
    alone = {
        name: value[..., 20:21] if name in STREAMS else value for name, value in inputs.items()
    }
    torch.testing.assert_close(out[..., 20:21], selective_scan(**alone, delta_softplus=True))


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float32, -95.0), (torch.float64, -720.0)])
def test_a_decay_too_small_for_normal_numbers_is_exactly_zero(
    dtype: torch.dtype, exponent: float
) -> None:
    assert 0 < torch.tensor(exponent, dtype=dtype).exp() < torch.finfo(dtype).tiny
    inputs = {name: value.detach().to(dtype) for name, value in make().items()}
    inputs |= {"delta": torch.ones_like(inputs["u"]), "delta_bias": None}
    inputs["A"] = torch.full((5, 3), exponent, dtype=dtype, requires_grad=True)
    selective_scan(**inputs).sum().backward()
    assert (inputs["A"].grad == 0).all()


def test_the_matmul_precision_setting_does_not_touch_the_scan() -> None:
    inputs = {name: value.detach().float() for name, value in make().items()}
    exact = selective_scan(**inputs)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(exact, selective_scan(**inputs))
    finally:
        torch.set_float32_matmul_precision(before)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    inputs = make(batch=3, channels=64, length=40, states=8)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            outputs = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
            results.append([*outputs, *gradients(outputs, inputs)])
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-12)
