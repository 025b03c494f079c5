"""The selective scan on a CPU, by compiled loops over all paths at once.

The functions are those of `blocks.scan.reference`, the definition; here the work is split into
tasks, the loops are in `blocks.scan.cpu_kernels`. Streams of 16 bits are widened once, everything
else is read and written where it lies, in any layout; best is one whose channels are neighbours.
The order of every sum depends on shapes only: results are the same bits on any number of threads.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.cpu.compilation import available, compile_kernel
from blocks.cpu.threads import run_parallel
from blocks.scan.reference import Gradients

__all__ = ["available", "backward", "forward", "kept_shape", "refuses"]

LANES = 16
# More states would not fit the stack that every platform grants a thread.
MAX_STATES = 64
# Blocks of a task: fewer waste memory bandwidth, more leave threads without work. How many tasks
# there should be depends on no machine.
MIN_BLOCKS, MAX_BLOCKS, TASKS = 3, 12, 16


def refuses(A: Tensor, B: Tensor, C: Tensor) -> str | None:
    """Why these arguments are beyond the loops."""
    if A.is_complex():
        return "A is complex"
    if B.dim() == 3 or C.dim() == 3:
        return "B or C is constant in time"
    if A.shape[-1] > MAX_STATES:
        return f"{A.shape[-1]} states per channel are more than {MAX_STATES}"
    return None


def tile_steps(states: int) -> int:
    """Steps between kept states: a tile's decays and states stay in the second-level cache."""
    return max(16, min(64, 256 // max(states, 1)))


def kept_shape(
    paths: int, batch: int, groups: int, channels: int, length: int, states: int
) -> tuple[int, ...]:
    """Shape of the kept states: the state before each tile, in blocks of LANES channels."""
    tiles = -(-length // tile_steps(states))
    return (paths, batch, tiles, groups * -(-(channels // groups) // LANES), states, LANES)


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    paths: str,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `blocks.scan.reference.forward`."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, paths, width)
    out = call.new_like(u[:, 0])
    last = A.new_zeros((len(u), *A.shape), dtype=call.real)
    kept = A.new_empty(call.kept_shape, dtype=call.real)
    call.run("forward", *_stream(out), last.numpy(), kept.numpy())
    return out.to(u.dtype), last, kept


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    paths: str,
    width: int,
) -> Gradients:
    """See `blocks.scan.reference.backward`."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, paths, width)
    grad = grad_out.to(call.real)
    last = A.new_zeros((0,) * 4, dtype=call.real) if grad_last is None else grad_last.to(call.real)
    du, ddelta = call.new_like(u), call.new_like(delta)
    dz = call.new_like(grad_out if z is None else z)
    batch, (count, channels, states) = len(u), A.shape
    dA = A.new_zeros((batch, count, channels, states), dtype=call.real)
    dB, dC = (A.new_zeros(call.factor_shape, dtype=call.real) for _ in range(2))
    dD, dbias = (A.new_zeros((batch, count, channels), dtype=call.real) for _ in range(2))
    call.run(
        "backward", *_stream(grad), last.contiguous().numpy(), kept.numpy(),
        *_stream(du), *_stream(ddelta), dA.numpy(), dB.numpy(), dC.numpy(), dD.numpy(),
        *_stream(dz), dbias.numpy(),
    )  # fmt: skip
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        dA.sum(0).to(A.dtype),
        torch.empty_like(B).copy_(dB.sum(0).transpose(-1, -2)),
        torch.empty_like(C).copy_(dC.sum(0).transpose(-1, -2)),
        None if D is None else dD.sum(0).to(D.dtype),
        None if z is None else dz.to(z.dtype),
        None if delta_bias is None else dbias.sum(0).to(delta_bias.dtype),
    )


class _Call:
    """The arguments of one scan in the form the loops take, and its tasks.

    Args: those of `forward`.
    """

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        lengths: Tensor | None,
        delta_softplus: bool,
        paths: str,
        width: int,
    ) -> None:
        from blocks.scan.cpu_kernels import PATH_LETTERS

        double = torch.float64 in (u.dtype, A.dtype)
        self.real = torch.float64 if double else torch.float32
        self.ragged = lengths is not None
        batch, _, channels, length = u.shape
        count, _, self.states = A.shape
        groups = B.shape[2]
        width_P = channels // max(groups, 1)
        blocks = -(-width_P // LANES)
        per_task = max(MIN_BLOCKS, min(MAX_BLOCKS, batch * groups * blocks // TASKS))
        parts = max(1, -(-blocks // per_task))
        span = LANES * -(-blocks // parts) if blocks else LANES
        self.tasks = batch * groups * parts if length else 0
        self.factor_shape = (parts, batch, count, groups, length, self.states)
        self.kept_shape = kept_shape(count, batch, groups, channels, length, self.states)
        valid = np.full(batch, length) if lengths is None else lengths.to(torch.int64).numpy()
        # Kept alive here: the arrays below look at their memory.
        self.tensors = [
            x.to(self.real) for x in (u, delta, B, C, u.new_empty((0, 0, 0)) if z is None else z)
        ]
        u, delta, B, C, gate = self.tensors
        self.arguments: tuple[Any, ...] = (
            (count, groups, width_P, span),
            np.array([PATH_LETTERS.index(path) for path in paths]),
            width,
            valid.clip(0, length),
            delta_softplus,
            *_stream(u),
            *_stream(delta),
            A.to(self.real).contiguous().numpy(),
            *_stream(B),
            *_stream(C),
            self._vectors(D),
            *_stream(gate),
            self._vectors(delta_bias),
        )

    def new_like(self, x: Tensor) -> Tensor:
        """Room for a result in the layout of x; zeros where padding will not be written."""
        make = torch.zeros_like if self.ragged else torch.empty_like
        return make(x, dtype=self.real)

    def run(self, name: str, *results: Any) -> None:
        """Runs a kernel over all tasks."""
        if self.tasks == 0:
            return
        kernel = _kernel(name, self.states, self.real)
        run_parallel(lambda begin, end: kernel(begin, end, *self.arguments, *results), self.tasks)

    def _vectors(self, x: Tensor | None) -> Any:
        x = torch.empty(0, 0) if x is None else x
        return x.to(self.real).contiguous().numpy()


def _stream(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """A tensor as the flat memory it spans, and its strides.

    Strides are (batch, path, channel, position), (batch, path, group, state, position) for B and C.
    The path stride is 0 where all paths share one, or there is none.
    """
    span = (
        0
        if x.numel() == 0
        else 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    )
    flat = x.as_strided((span,), (1,)).numpy()
    strides = x.stride()
    if x.dim() == 3:
        return flat, (strides[0], 0, *strides[1:])
    return flat, (strides[0], 0 if x.shape[1] == 1 else strides[1], *strides[2:])


@functools.cache
def _kernel(name: str, states: int, real: torch.dtype) -> Any:
    from blocks.scan import cpu_kernels

    def compile(function: Any) -> Any:
        return compile_kernel(function, cpu_kernels.__file__)

    make = cpu_kernels.forward_kernel if name == "forward" else cpu_kernels.backward_kernel
    return make(compile, states, np.float64 if real == torch.float64 else np.float32)
