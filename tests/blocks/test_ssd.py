from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks import selective_scan
from blocks.errors import SuiteError
from blocks.ssd import ssd

HEADS, HEAD_DIM, GROUPS, STATES = 4, 3, 2, 5
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True])


def streams(batch: int, length: int, dt_max: float = 0.5, seed: int = 0) -> list[Tensor]:
    """x, dt, A, B, C in float64."""
    torch.manual_seed(seed)
    x, dt = torch.randn(batch, length, HEADS, HEAD_DIM), torch.rand(batch, length, HEADS) * dt_max
    B, C = torch.randn(2, batch, length, GROUPS, STATES)
    return [v.double().requires_grad_() for v in (x, dt, -0.1 - torch.rand(HEADS), B, C)]


def recurrence(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    B, C = (v.repeat_interleave(x.shape[2] // v.shape[2], dim=2) for v in (B, C))
    h = x.new_zeros(len(x), *x.shape[2:], B.shape[-1]) if h is None else h
    ys = []
    for t in range(x.shape[1]):
        decay = (dt[:, t] * A).exp()[..., None, None]
        h = decay * h + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        ys.append(torch.einsum("bhpn,bhn->bhp", h, C[:, t]))
    return torch.stack(ys, 1), h


def with_gradients(inputs: list[Tensor], *outputs: Tensor) -> list[Tensor]:
    loss = sum(v.double().square().sum() for v in outputs)
    return [*outputs, *torch.autograd.grad(loss, inputs)]


def assert_near(ours: Tensor, expected: Tensor, double: float, single: float) -> None:
    bound = double if ours.dtype == torch.float64 else single
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


@PRECISIONS
@pytest.mark.parametrize("chunk_size", [4, 5, 64])
def test_it_equals_the_minimal_form_of_the_paper(
    golden: Path, dtype: torch.dtype, chunk_size: int
) -> None:
    with np.load(golden / "kernels" / "ssd_minimal.npz", allow_pickle=False) as file:
        arrays = {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}
    inputs = [arrays[f"in.{k}"].requires_grad_() for k in "XABC"]
    X, log_decay, B, C = inputs  # X is dt x, A is dt A
    dt, A = -log_decay, -torch.ones(X.shape[2], dtype=dtype)
    y, state = ssd(
        X / dt.unsqueeze(-1), dt, A, B, C, chunk_size=chunk_size, return_final_state=True
    )
    y.backward(arrays["gout.y"])
    assert_near(y, arrays["out.y"], 1e-12, 5e-6)
    assert_near(state, arrays["out.final_state"], 1e-12, 5e-6)
    for key, value in zip("XABC", inputs, strict=True):
        assert_near(value.grad, arrays[f"grad.{key}"], 1e-12, 1e-5)


@pytest.mark.parametrize(("length", "chunk_size"), [(1, 64), (7, 1), (13, 4), (16, 8), (19, 64)])
def test_it_equals_the_recurrence_from_any_state_for_any_chunk(
    length: int, chunk_size: int
) -> None:
    inputs = streams(2, length)
    start = torch.randn(2, HEADS, HEAD_DIM, STATES, dtype=torch.float64, requires_grad=True)
    ours = ssd(*inputs, chunk_size=chunk_size, initial_states=start, return_final_state=True)
    inputs.append(start)
    expected = with_gradients(inputs, *recurrence(*inputs))
    for a, b in zip(with_gradients(inputs, *ours), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("length", "chunk_size"), [(1, 64), (13, 4), (16, 8)])
def test_reverse_equals_flip_ssd_flip(length: int, chunk_size: int) -> None:
    inputs = streams(2, length)
    ours = ssd(*inputs, chunk_size=chunk_size, return_final_state=True, reverse=True)
    x, dt, A, B, C = inputs
    y, state = recurrence(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1))
    expected = with_gradients(inputs, y.flip(1), state)
    for a, b in zip(with_gradients(inputs, *ours), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@DIRECTIONS
def test_it_is_a_selective_scan_with_decay_steps_and_weights_repeated(reverse: bool) -> None:
    x, dt, A, B, C = streams(2, 21)
    y, state = ssd(x, dt, A, B, C, chunk_size=6, return_final_state=True, reverse=reverse)
    scanned, last = selective_scan(
        x.flatten(2).mT,
        dt.repeat_interleave(HEAD_DIM, 2).mT,
        A.repeat_interleave(HEAD_DIM).unsqueeze(1).expand(-1, STATES),
        B.permute(0, 2, 3, 1),
        C.permute(0, 2, 3, 1),
        return_last_state=True,
        reverse=reverse,
    )
    torch.testing.assert_close(y.flatten(2), scanned.mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.flatten(1, 2), last, rtol=0, atol=1e-12)


@DIRECTIONS
def test_nan_padding_changes_neither_results_nor_gradients(reverse: bool) -> None:
    inputs, lengths = streams(3, 11), torch.tensor([11, 4, 0])
    alone = [v[1:2, :4] if v.dim() > 1 else v for v in inputs]
    expected = ssd(*alone, return_final_state=True, reverse=reverse)
    spoilt = [v.detach().clone() for v in inputs]
    for v in spoilt:
        if v.dim() > 1:
            v[1, 4:], v[2] = float("nan"), float("nan")
    spoilt = [v.requires_grad_() for v in spoilt]
    y, state = ssd(*spoilt, chunk_size=3, return_final_state=True, lengths=lengths, reverse=reverse)
    torch.testing.assert_close(y[1:2, :4], expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(state[1:2], expected[1], rtol=0, atol=1e-12)
    assert (y[1, 4:] == 0).all() and (y[2] == 0).all() and (state[2] == 0).all()
    grad = torch.ones_like(y)
    grad[1, 4:] = float("nan")
    y.backward(grad)
    clean = torch.autograd.grad(expected[0].sum(), inputs)
    for ours, theirs in zip(spoilt, clean, strict=True):
        if ours.dim() > 1:
            torch.testing.assert_close(ours.grad[1, :4], theirs[1, :4], rtol=0, atol=1e-12)
            assert (ours.grad[1, 4:] == 0).all() and (ours.grad[2] == 0).all()
    assert spoilt[2].grad.isfinite().all()


@DIRECTIONS
@pytest.mark.parametrize("dt_max", [1e-4, 0.5, 100.0, 1e6])
def test_single_precision_keeps_its_digits_at_any_decay(dt_max: float, reverse: bool) -> None:
    inputs = streams(2, 150)
    spread = torch.rand(2, 150, HEADS).double() * 6 - 6  # steps from 1e-6 dt_max to dt_max
    inputs[1] = (10**spread * dt_max).requires_grad_()
    inputs[2] = torch.linspace(-16, -0.1, HEADS).double().requires_grad_()
    narrow = [v.detach().float().requires_grad_() for v in inputs]
    outputs = [ssd(*v, return_final_state=True, reverse=reverse) for v in (narrow, inputs)]
    ours, expected = (with_gradients(v, *y) for v, y in zip((narrow, inputs), outputs, strict=True))
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.isfinite().all() and a.dtype == torch.float32
        assert_near(a, b.float(), 0, 5e-6 if i < 2 else 1e-5)


@DIRECTIONS
@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (0, 0)])
def test_empty_batches_and_sequences_pass_through(batch: int, length: int, reverse: bool) -> None:
    start = torch.randn(batch, HEADS, HEAD_DIM, STATES, dtype=torch.float64)
    inputs = streams(batch, length)
    y, state = ssd(*inputs, initial_states=start, return_final_state=True, reverse=reverse)
    assert y.shape == (batch, length, HEADS, HEAD_DIM)
    assert torch.equal(state, start)
    y.sum().backward()
    assert inputs[0].grad.shape == inputs[0].shape


def test_gradients_of_gradients_exist() -> None:
    inputs = [v.detach()[:1, :4] if v.dim() > 1 else v.detach() for v in streams(1, 4)]
    inputs = [v.requires_grad_() for v in inputs]
    assert torch.autograd.gradgradcheck(lambda *v: ssd(*v, chunk_size=2), inputs)


def test_autocast_neither_narrows_the_state_nor_the_matmuls() -> None:
    inputs = [v.detach().float() for v in streams(2, 40)]
    x, dt, A, B, C = inputs
    with torch.autocast("cpu", torch.bfloat16):
        y, state = ssd(*inputs, return_final_state=True)
        narrow, wide = ssd(x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16(), return_final_state=True)
    expected = ssd(*inputs, return_final_state=True)
    assert torch.equal(y, expected[0]) and torch.equal(state, expected[1])
    assert narrow.dtype == torch.bfloat16 and wide.dtype == torch.float32
    assert_near(narrow.float(), y, 0, 0.02)


def test_kept_memory_grows_with_the_length_not_its_square() -> None:
    def kept(length: int) -> int:
        sizes: dict[int, int] = {}

        def note(v: Tensor) -> Tensor:
            sizes[v.untyped_storage().data_ptr()] = v.untyped_storage().nbytes()
            return v

        with torch.autograd.graph.saved_tensors_hooks(note, lambda v: v):
            y = ssd(*streams(1, length), chunk_size=16)
        assert y.requires_grad
        return sum(sizes.values())

    assert kept(1024) < 4.2 * kept(256)


@DIRECTIONS
def test_it_compiles_as_one_graph(reverse: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(ssd, backend="aot_eager", fullgraph=True)
    inputs, options = streams(2, 9), {"chunk_size": 4, "reverse": reverse}
    expected = with_gradients(inputs, ssd(*inputs, **options))
    for a, b in zip(with_gradients(inputs, compiled(*inputs, **options)), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_misfits_are_named() -> None:
    x, dt, A, B, C = streams(2, 6)
    wrong = {
        "x=": (x[0], dt, A, B, C),
        "dt=": (x, dt[:, :5], A, B, C),
        "A=": (x, dt, A[:3], B, C),
        "B=": (x, dt, A, B[:, :, [0, 1, 1]], C),
        "C=": (x, dt, A, B, C[..., :4]),
    }
    for name, arguments in wrong.items():
        with pytest.raises(SuiteError, match=rf"ssd\({name}"):
            ssd(*arguments)
    with pytest.raises(SuiteError, match=r"(?s)shape \(2, 4, 3, 5\).*initial_states"):
        ssd(x, dt, A, B, C, initial_states=torch.zeros(2, 4, 5, 3))
    with pytest.raises(SuiteError, match="lengths"):
        ssd(x, dt, A, B, C, lengths=torch.ones(2))
    with pytest.raises(SuiteError, match="chunk_size"):
        ssd(x, dt, A, B, C, chunk_size=0)
