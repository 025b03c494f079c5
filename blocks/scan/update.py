"""One step of the selective scan: a state goes on from where it is.

    s = softplus(delta + bias);  h = exp(s A) h + s B u;  y = (C . h + D u) silu(z)

What state-spaces/mamba calls `selective_state_update`; on a CPU, outside of autograd, by one
compiled pass.

Axes: B sequence, D channel, N state.
"""

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.cpu.compilation import compile_kernel
from blocks.cpu.steps import rows, run_step, serves
from blocks.scan.cpu import LANES, MAX_STATES


def selective_state_update(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """Takes one step of every sequence, with softplus and gate.

    Args:
        state: (B, D, N), float32 or float64; updated IN PLACE, cut off from the graph.
        u: Input, (B, D).
        delta: Raw step sizes, (B, D).
        A: Decay, (D, N), negative.
        B: Input weights, (B, N).
        C: Output weights, (B, N).
        D: Skip weights, (D,).
        z: Gate, (B, D); its type is that of the output.
        delta_bias: Added to delta before the softplus, (D,).

    Returns:
        (B, D).
    """
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    if serves(state, *inputs) and state.shape[-1] <= MAX_STATES:
        return _compiled(state, *inputs)
    u, delta, A, B, C, D, delta_bias = (
        v.to(state.dtype) for v in (u, delta, A, B, C, D, delta_bias)
    )
    s = F.softplus(delta + delta_bias)
    past = state.clone()  # What a gradient needs of it must not change.
    h = past * torch.exp(s.unsqueeze(-1) * A) + (s * u).unsqueeze(-1) * B.unsqueeze(1)
    state.copy_(h.detach())
    y = (h @ C.unsqueeze(-1)).squeeze(-1) + D * u
    return y.to(z.dtype) * F.silu(z)


def _compiled(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    real = state.dtype
    batch, channels, states = state.shape
    out = u.new_empty((batch, channels), dtype=real)
    tensors = [rows(x, real) for x in (u, delta, A, B, C, D, z, delta_bias)]
    addresses = tuple(x.data_ptr() for x in tensors)
    strides = tuple(tensors[i].stride(0) for i in (0, 1, 3, 4, 6))
    kernel = _kernel(states, real)
    run_step(kernel, state, channels, state.data_ptr(), addresses, strides, out.data_ptr())
    return out.to(z.dtype)


@functools.cache
def _kernel(states: int, real: torch.dtype) -> Any:
    from blocks.scan import cpu_update_kernels

    def compile(function: Any) -> Any:
        return compile_kernel(function, cpu_update_kernels.__file__)

    number = np.float64 if real == torch.float64 else np.float32
    return cpu_update_kernels.update_kernel(compile, states, LANES, number)
