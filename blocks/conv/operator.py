"""The depthwise convolution along several paths, as one operator with one autograd rule.

It serves whatever follows it with one tensor for all directions; nothing is flipped. On a CPU with
numba by compiled loops, on a GPU with Triton by its kernels, elsewhere by plain torch.

Axes: K path, B batch, D channel, L time, W tap.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from blocks.conv import cpu, cuda, gpu, reference
from blocks.operators import define_operator, differentiable


def path_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    paths: str,
    silu: bool,
    lengths: Tensor | None = None,
) -> Tensor:
    """Convolves (B, D, L) along every path; see `blocks.conv.reference.forward`.

    Computes in the wider of the types of x and weight, inside an autocast region as well.

    Returns:
        (B, K, D, L) in the type of x, laid out as (K, B, L, D).
    """
    out: Tensor = _conv(x, weight, bias, lengths, silu, paths)
    return out


def conv_backend(x: Tensor) -> ModuleType:
    """Who computes the convolution of x: its functions are those of `blocks.conv.reference`."""
    return next((b for b in (cpu, gpu, cuda) if b.available(x.device)[0]), reference)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = conv_backend(x).forward(x, weight, bias, lengths, silu, paths)
    return out


def _fake_forward(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
    return reference.new_output(x, len(weight))


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        dx, dweight, dbias = conv_backend(x).backward(grad, x, weight, bias, lengths, silu, paths)
    return dx, dweight, dbias


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dbias = x.new_empty(0) if bias is None else torch.empty_like(bias)
    return torch.empty_like(x), torch.empty_like(weight), dbias


_conv = define_operator("path_conv", _forward, _fake_forward)
_conv_backward = define_operator("path_conv_backward", _backward, _fake_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, lengths, ctx.silu, ctx.paths = inputs
    ctx.save_for_backward(x, weight, bias, lengths)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, lengths = ctx.saved_tensors
    dx, dweight, dbias = _conv_backward(grad, x, weight, bias, lengths, ctx.silu, ctx.paths)
    return dx, dweight, None if bias is None else dbias, None, None, None


differentiable(
    "path_conv",
    _differentiate,
    _save,
    "use torch.nn.functional.conv1d, and a plain loop over time for a scan",
)
