import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks import causal_conv1d, causal_conv1d_update
from blocks.errors import SuiteError

NAMES = ["conv_w4_silu", "conv_w2_none_nobias", "conv_w3_short", "conv_init_final"]


def load(path: Path, dtype: torch.dtype) -> tuple[str | None, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        activation = json.loads(bytes(file["meta"]))["activation"]
        arrays = {k: torch.from_numpy(file[k]).to(dtype) for k in file if k != "meta"}
    return activation, arrays


def make(length: int = 11, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(width)
    shapes = ((2, 5, length), (5, width), (5,))
    x, weight, bias = (torch.randn(s, dtype=torch.float64, generator=rng) for s in shapes)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def by_torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """nn.Conv1d's own arithmetic, with all padding on the left."""
    padded = F.pad(x, (weight.shape[1] - 1, 0))
    return F.conv1d(padded, weight.unsqueeze(1), bias, groups=len(weight))


def assert_same_gradients(ours: Tensor, expected: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    seed = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view(ours.shape)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, seed),
        torch.autograd.grad(expected, inputs, seed),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_states_and_gradients_equal_the_golden_vectors(
    golden: Path, name: str, dtype: torch.dtype
) -> None:
    activation, arrays = load(golden / "kernels" / f"{name}.npz", dtype)
    inputs = {k[3:]: v.requires_grad_() for k, v in arrays.items() if k.startswith("in.")}
    out, final = causal_conv1d(**inputs, activation=activation, return_final_states=True)
    out.backward(arrays["gout.y"])
    near = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 5e-6}
    torch.testing.assert_close(out, arrays["out.y"], **near)
    for key, value in inputs.items():
        torch.testing.assert_close(value.grad, arrays[f"grad.{key}"], **near)
    if "out.final_states" in arrays:
        torch.testing.assert_close(final, arrays["out.final_states"], **near)


@pytest.mark.parametrize("name", NAMES)
def test_stepping_equals_the_golden_vectors_and_updates_the_state_in_place(
    golden: Path, name: str
) -> None:
    activation, arrays = load(golden / "kernels" / f"{name}.npz", torch.float64)
    x, weight, expected = arrays["in.x"], arrays["in.weight"], arrays["out.update_first_steps"]
    state = torch.zeros_like(arrays["out.update_conv_state"])
    if "in.initial_states" in arrays:
        state[..., 1:] = arrays["in.initial_states"]
    steps = [
        causal_conv1d_update(x[..., t], state, weight, arrays.get("in.bias"), activation)
        for t in range(expected.shape[-1])
    ]
    torch.testing.assert_close(torch.stack(steps, -1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, arrays["out.update_conv_state"], rtol=0, atol=1e-15)


@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("length", [1, 3, 11])
def test_any_width_equals_conv1d_padded_on_the_left(width: int, length: int) -> None:
    inputs = make(length, width)
    assert_same_gradients(causal_conv1d(*inputs), by_torch(*inputs), inputs)


@pytest.mark.parametrize("width", [1, 3, 4, 7])
def test_reverse_convolution_equals_flip_convolution_flip(width: int) -> None:
    x, weight, bias = inputs = make(5, width)
    ours = causal_conv1d(*inputs, activation="silu", reverse=True)
    expected = F.silu(by_torch(x.flip(-1), weight, bias)).flip(-1)
    assert_same_gradients(ours, expected, inputs)


def test_channel_last_memory_gives_the_same_numbers() -> None:
    x, weight, bias = make()
    strided = x.detach().mT.contiguous().mT.requires_grad_()
    assert not strided.is_contiguous()
    ours = causal_conv1d(strided, weight, bias)
    torch.testing.assert_close(ours, by_torch(x, weight, bias), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_nan_padding_changes_neither_results_nor_gradients(reverse: bool) -> None:
    x, weight, bias = make()
    x = x.detach().clone()
    x[1, :, 6:] = float("nan")
    x.requires_grad_()
    lengths = torch.tensor([11, 6])
    out = causal_conv1d(x, weight, bias, activation="silu", reverse=reverse, lengths=lengths)
    alone = causal_conv1d(x[1:, :, :6].detach(), weight, bias, activation="silu", reverse=reverse)
    torch.testing.assert_close(out[1:, :, :6], alone, rtol=0, atol=1e-14)
    assert (out[1, :, 6:] == 0).all()
    out.sum().backward()
    assert all(v.grad.isfinite().all() for v in (x, weight, bias))
    assert (x.grad[1, :, 6:] == 0).all() and (x.grad[1, :, :6] != 0).all()


@pytest.mark.parametrize("with_past", [False, True])
def test_final_states_are_the_last_valid_inputs_of_each_sample(with_past: bool) -> None:
    x, weight, _ = make()
    past = torch.ones(2, 5, 3, dtype=x.dtype) if with_past else None
    lengths = torch.tensor([11, 2])
    _, final = causal_conv1d(
        x, weight, initial_states=past, return_final_states=True, lengths=lengths
    )
    assert torch.equal(final[0], x[0, :, 8:])
    assert torch.equal(final[1, :, 1:], x[1, :, :2])
    assert (final[1, :, 0] == (1 if with_past else 0)).all()


def test_updating_several_steps_at_once_equals_one_at_a_time() -> None:
    x, weight, bias = (v.detach() for v in make())
    state = torch.zeros(2, 5, 6, dtype=x.dtype)
    first = causal_conv1d_update(x[..., :4], state, weight, bias)
    rest = [causal_conv1d_update(x[..., t], state, weight, bias) for t in range(4, 11)]
    ours = torch.cat([first, torch.stack(rest, -1)], dim=-1)
    torch.testing.assert_close(ours, by_torch(x, weight, bias), rtol=1e-12, atol=1e-12)
    assert torch.equal(state, x[..., 5:])


def test_narrow_input_with_wide_weights_is_rounded_once() -> None:
    x, weight, bias = (v.detach().float() for v in make())
    out = causal_conv1d(x.bfloat16(), weight, bias, activation="silu")
    assert out.dtype == torch.bfloat16
    expected = causal_conv1d(x.bfloat16().float(), weight, bias, activation="silu")
    assert torch.equal(out, expected.bfloat16())


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 5, 0)])
def test_empty_input_gives_empty_output(shape: tuple[int, ...]) -> None:
    _, weight, bias = make()
    out, final = causal_conv1d(
        torch.zeros(shape, dtype=weight.dtype), weight, bias, return_final_states=True
    )
    assert out.shape == shape and final.shape == (*shape[:2], 3)
    out.sum().backward()
    assert (weight.grad == 0).all()


def test_wrong_arguments_are_named() -> None:
    x, weight, bias = make()
    with pytest.raises(SuiteError, match=r"(?s)\(5, width\).*weight="):
        causal_conv1d(x, weight[:3], bias)
    with pytest.raises(SuiteError, match="relu"):
        causal_conv1d(x, weight, bias, activation="relu")
    with pytest.raises(SuiteError, match="reverse=True"):
        causal_conv1d(x, weight, bias, return_final_states=True, reverse=True)
    with pytest.raises(SuiteError, match="at least 3"):
        causal_conv1d_update(x, torch.zeros(2, 5, 2), weight)
