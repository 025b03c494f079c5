"""The depthwise convolution on a CPU: both directions, bias and silu in one pass over the input.

The functions are those of `blocks.conv.reference`; the loops are in `blocks.conv.cpu_kernels`. They
want neighbouring channels: an input in another layout is copied once, as are streams of 16 bits.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.conv.reference import new_output
from blocks.cpu.compilation import available, compile_kernel
from blocks.cpu.steps import rows, run_step, serves
from blocks.cpu.threads import run_parallel

__all__ = ["available", "backward", "forward", "step"]

# Channels of a task: two vectors of the widest kind.
LANES = 32


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> Tensor:
    """See `blocks.conv.reference.forward`."""
    call = _Call(x, weight, bias, lengths, silu, paths)
    out = new_output(call.x, len(paths))
    if lengths is not None:
        out.zero_()
    call.run("forward", out.data_ptr())
    return out.to(x.dtype)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `blocks.conv.reference.backward`."""
    call = _Call(x, weight, bias, lengths, silu, paths)
    batch, channels, length = x.shape
    count, _, width = weight.shape
    grad = grad.to(call.x.dtype)
    grad = grad if grad.stride(2) == 1 else grad.mT.contiguous().mT
    dx = grad.new_zeros((batch, length, channels))
    dweight = grad.new_zeros((batch, count, width, channels))
    dbias = grad.new_zeros((batch, count, channels))
    call.run(
        "backward", grad.data_ptr(), grad.stride(),
        dx.data_ptr(), dweight.data_ptr(), dbias.data_ptr(),
    )  # fmt: skip
    return (
        torch.empty_like(x).copy_(dx.mT),
        dweight.sum(0).mT.to(weight.dtype).contiguous(),
        dbias.new_empty(0) if bias is None else dbias.sum(0).to(bias.dtype),
    )


def step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """One more input of each sequence, with silu; None where the loops cannot serve.

    Args:
        x: (B, D).
        state: Latest inputs, (B, D, S) with S >= W - 1; shifted left by x in place.
        weight: (D, W).
        bias: (D,).

    Returns:
        (B, D) in the type of x.
    """
    real = torch.promote_types(state.dtype, weight.dtype)
    if real != state.dtype or not serves(state, x, weight, bias):
        return None
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    batch, channels, stored = state.shape
    out = x.new_empty((batch, channels), dtype=real)
    x_, weight, bias = rows(x, real), weight.to(real).contiguous(), rows(bias, real)
    run_step(
        _kernel("step", weight.shape[1], True, real), state, channels, stored, state.data_ptr(),
        x_.data_ptr(), x_.stride(0), weight.data_ptr(), bias.data_ptr(), out.data_ptr(),
    )  # fmt: skip
    return out.to(x.dtype)


class _Call:
    """The arguments of one convolution in the form the loops take; arguments as for `forward`."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lengths: Tensor | None,
        silu: bool,
        paths: str,
    ) -> None:
        double = torch.float64 in (x.dtype, weight.dtype)
        real = torch.float64 if double else torch.float32
        batch, channels, length = x.shape
        x = x.to(real)
        self.x = x if x.stride(1) == 1 else x.mT.contiguous().mT
        weight_KWD = weight.mT.to(real).contiguous()
        bias_KD = self.x.new_zeros(weight.shape[:2]) if bias is None else bias.to(real).contiguous()
        self.held = (weight_KWD, bias_KD)
        self.tasks = batch * -(-channels // LANES) if length else 0
        self.width, self.silu = weight.shape[-1], silu
        valid = np.full(batch, length)
        if lengths is not None:
            valid = lengths.to(torch.int64).numpy().clip(0, length)
        self.arguments: tuple[Any, ...] = (
            batch, channels, length, np.array([1 if path == ">" else -1 for path in paths]), valid,
            self.x.data_ptr(), self.x.stride(), weight_KWD.data_ptr(), bias_KD.data_ptr(),
        )  # fmt: skip

    def run(self, name: str, *results: Any) -> None:
        """Runs a kernel over all tasks."""
        if self.tasks:
            kernel = _kernel(name, self.width, self.silu, self.x.dtype)
            arguments = (*self.arguments, *results)
            run_parallel(lambda begin, end: kernel(begin, end, *arguments), self.tasks)


@functools.cache
def _kernel(name: str, width: int, silu: bool, real: torch.dtype) -> Any:
    from blocks.conv import cpu_kernels

    def compile(function: Any) -> Any:
        return compile_kernel(function, cpu_kernels.__file__)

    number = np.float64 if real == torch.float64 else np.float32
    if name == "step":
        return cpu_kernels.step_kernel(compile, width, number)
    make = cpu_kernels.forward_kernel if name == "forward" else cpu_kernels.backward_kernel
    return make(compile, width, silu, number)
