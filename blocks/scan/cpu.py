"""The selective scan on a CPU, by compiled loops over all paths at once.

The functions are those of `blocks.scan.reference`, the definition; here the work is split into
tasks, the loops are in `blocks.scan.cpu_kernels`. Streams of 16 bits are widened once, everything
else is read and written where it lies, in any layout; best is one whose channels are neighbours.
The order of every sum depends on shapes only: results are the same bits on any number of threads.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.cpu.compilation import available, compile_kernel
from blocks.cpu.threads import run_parallel
from blocks.scan.paths import LETTERS
from blocks.scan.reference import Gradients

__all__ = ["available", "backward", "forward", "kept_shape", "refuses"]

LANES = 16
# More states would not fit the stack that every platform grants a thread.
MAX_STATES = 64
# Blocks of a task: fewer waste memory bandwidth, more leave threads without work. How many tasks
# there should be depends on no machine.
MIN_BLOCKS, MAX_BLOCKS, TASKS = 3, 12, 8


def refuses(A: Tensor, B: Tensor, C: Tensor) -> str | None:
    """Why these arguments are beyond the loops."""
    if A.is_complex():
        return "A is complex"
    if B.dim() == 3 or C.dim() == 3:
        return "B or C is constant in time"
    if A.shape[-1] > MAX_STATES:
        return f"{A.shape[-1]} states per channel are more than {MAX_STATES}"
    return None


def compiled_states(states: int) -> int:
    """States of the loops that serve so many: the next power of two, the rest being zeros."""
    return 1 << max(states - 1, 0).bit_length()


def tile_steps(states: int) -> int:
    """Steps between kept states: a tile's decays and states stay in the second-level cache."""
    return max(16, min(64, 256 // compiled_states(states)))


def kept_shape(
    paths: int, batch: int, groups: int, channels: int, length: int, states: int
) -> tuple[int, ...]:
    """Shape of the kept states: the state before each tile, in blocks of LANES channels."""
    tiles = -(-length // tile_steps(states))
    blocks = -(-(channels // groups) // LANES)
    return (paths, batch, tiles, groups * blocks, compiled_states(states), LANES)


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
    last = call.new_blocks(len(u), call.plan.states)
    kept = A.new_empty(call.kept_shape, dtype=call.real)
    call.run("forward", *_stream(out), last.data_ptr(), kept.data_ptr())
    return out.to(u.dtype), call.channels(last)[..., : A.shape[-1], :].mT.contiguous(), kept


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
    overwrite: bool = False,
) -> Gradients:
    """See `blocks.scan.reference.backward`."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, paths, width)
    plan, grad = call.plan, grad_out.to(call.real)
    last = None if grad_last is None else call.blocks(grad_last.mT.to(call.real))
    # A task reads a tile of u and delta before it writes their gradients there.
    mine = overwrite and lengths is None and u.dtype == call.real and u.shape == delta.shape
    du, ddelta = (u, delta) if mine else (call.new_like(u), call.new_like(delta))
    dz = call.new_like(grad_out if z is None else z)
    dA = call.new_blocks(len(u), plan.states)
    make = torch.zeros if lengths is not None or not plan.tasks else torch.empty
    factor = (plan.parts, len(u), len(A), plan.groups, u.shape[-1], plan.states)
    dB, dC = make(factor, dtype=call.real), make(factor, dtype=call.real)
    dD, dbias = call.new_blocks(len(u), 1), call.new_blocks(len(u), 1)
    call.run(
        "backward", *_stream(grad), 0 if last is None else last.data_ptr(), kept.data_ptr(),
        *_stream(du), *_stream(ddelta), dA.data_ptr(), dB.data_ptr(), dC.data_ptr(), dD.data_ptr(),
        *_stream(dz), dbias.data_ptr(),
    )  # fmt: skip
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        call.channels(dA.sum(0))[:, : A.shape[-1]].mT.to(A.dtype).contiguous(),
        torch.empty_like(B).copy_(dB.sum(0)[..., : A.shape[-1]].mT),
        torch.empty_like(C).copy_(dC.sum(0)[..., : A.shape[-1]].mT),
        None if D is None else call.channels(dD.sum(0))[:, 0].to(D.dtype),
        None if z is None else dz.to(z.dtype),
        None if delta_bias is None else call.channels(dbias.sum(0))[:, 0].to(delta_bias.dtype),
    )


class _Call:
    """The arguments of one scan in the form the loops take.

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
        self.real = torch.float64 if torch.float64 in (u.dtype, A.dtype) else torch.float32
        self.ragged = lengths is not None
        batch, _, channels, length = u.shape
        shape = (len(A), batch, B.shape[2], channels, length, A.shape[-1])
        self.plan, self.kept_shape = _plan(*shape), kept_shape(*shape)
        plan, more = self.plan, self.plan.states - A.shape[-1]
        u, delta, B, C = (x.to(self.real) for x in (u, delta, B, C))
        if more:
            B, C = (F.pad(x, (0, 0, 0, more)) for x in (B, C))
        gate = None if z is None else z.to(self.real)
        rates = self.blocks(A.mT.to(self.real) * math.log2(math.e))
        skip, bias = (
            None if x is None else self.blocks(x.to(self.real).unsqueeze(-2), 1)
            for x in (D, delta_bias)
        )
        valid = _full(batch, length) if lengths is None else lengths.to(torch.int64).numpy()
        # The loops get addresses only, so that somebody must hold the tensors.
        self.held = (u, delta, rates, B, C, skip, gate, bias)
        self.arguments: tuple[Any, ...] = (
            (len(A), plan.groups, plan.width, plan.span, self.kept_shape[2], length),
            _codes(paths),
            width,
            valid.clip(0, length) if self.ragged else valid,
            delta_softplus,
            *_stream(u),
            *_stream(delta),
            rates.data_ptr(),
            *_stream(B),
            *_stream(C),
            0 if skip is None else skip.data_ptr(),
            *((0, (0, 0, 0, 0)) if gate is None else _stream(gate)),
            0 if bias is None else bias.data_ptr(),
        )

    def new_like(self, x: Tensor) -> Tensor:
        """Room for a result in the layout of x; zeros where padding will not be written."""
        make = torch.zeros_like if self.ragged else torch.empty_like
        return make(x, dtype=self.real)

    def new_blocks(self, batch: int, states: int) -> Tensor:
        """Zeros for every sample, path and channel, and each of so many states, in blocks."""
        plan = self.plan
        shape = (batch, self.kept_shape[0], plan.groups, plan.blocks, states, LANES)
        return torch.zeros(shape, dtype=self.real)

    def blocks(self, x: Tensor, states: int | None = None) -> Tensor:
        """(..., N, D) in blocks, (..., G, blocks, states, LANES), zeros where x ends."""
        plan = self.plan
        lacking = (states or plan.states) - x.shape[-2], plan.blocks * LANES - plan.width
        if states == 1 and not any(lacking):
            return x.contiguous()  # The same numbers in the same order.
        x = x.reshape(*x.shape[:-1], plan.groups, plan.width)
        if any(lacking):
            x = F.pad(x, (0, lacking[1], 0, 0, 0, lacking[0]))
        x = x.reshape(*x.shape[:-1], plan.blocks, LANES)
        return x.movedim(-4, -2).contiguous()

    def channels(self, x: Tensor) -> Tensor:
        """Out of the blocks again, (..., states, D)."""
        if x.shape[-2] == 1 and self.plan.width == self.plan.blocks * LANES:
            return x.flatten(-4).unsqueeze(-2)
        return x.movedim(-2, -4).flatten(-2)[..., : self.plan.width].flatten(-2)

    def run(self, name: str, *results: Any) -> None:
        """Runs a kernel over all tasks."""
        if self.plan.tasks:
            kernel = _kernel(name, self.plan.states, self.real)
            arguments = (*self.arguments, *results)
            run_parallel(lambda begin, end: kernel(begin, end, *arguments), self.plan.tasks)


@dataclass(frozen=True)
class _Plan:
    """How the channels of a scan are laid out and split, from its shapes alone."""

    groups: int
    width: int  # channels per group
    states: int  # of the loops
    blocks: int  # per group
    parts: int  # tasks per group
    span: int  # channels per task
    tasks: int


@functools.lru_cache(1024)
def _plan(paths: int, batch: int, groups: int, channels: int, length: int, states: int) -> _Plan:
    width = channels // groups
    blocks = -(-width // LANES)
    per_task = max(MIN_BLOCKS, min(MAX_BLOCKS, batch * groups * blocks // TASKS))
    parts = max(1, -(-blocks // per_task))
    tasks = batch * groups * parts if length and channels else 0
    span = LANES * -(-blocks // parts)
    return _Plan(groups, width, compiled_states(states), blocks, parts, span, tasks)


@functools.lru_cache(1024)
def _full(batch: int, length: int) -> Any:
    """Lengths of sequences without padding; only read."""
    return np.full(batch, length)


@functools.cache
def _codes(paths: str) -> Any:
    return np.array([LETTERS.index(path) for path in paths])


def _stream(x: Tensor) -> tuple[int, tuple[int, ...]]:
    """The address of a stream, and its strides.

    They are (batch, path, channel, position), for B and C (batch, path, group, state, position).
    The path stride is 0 where all paths share one, or there is none.
    """
    strides = x.stride()
    if x.dim() == 3:
        return x.data_ptr(), (strides[0], 0, strides[1], strides[2])
    return x.data_ptr(), (strides[0], 0 if x.shape[1] == 1 else strides[1], *strides[2:])


@functools.cache
def _kernel(name: str, states: int, real: torch.dtype) -> Any:
    from blocks.scan import cpu_kernels

    def compile(function: Any) -> Any:
        return compile_kernel(function, cpu_kernels.__file__)

    make = cpu_kernels.forward_kernel if name == "forward" else cpu_kernels.backward_kernel
    return make(compile, states, np.float64 if real == torch.float64 else np.float32)
