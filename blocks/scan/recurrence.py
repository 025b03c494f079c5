"""The recurrence of the selective scan in plain torch, along one path, with its gradient.

    s = delta + delta_bias, then softplus when asked
    h[t] = exp(s[t] A) h[t-1] + s[t] B[t] u[t]
    y[t] = C[t] . h[t] + D u[t]                 (complex A: 2 Re(C . h))

Follows Mamba (Gu and Dao, 2023) and the argument contract of state-spaces/mamba. The gradient is
derived by hand: only the states at chunk borders are kept, the others are computed again.

Axes: L time, T time inside a chunk, B batch, G group, P channel in its group (D = G P), N state.
Inside, time comes first and channels last, so that a step is one contiguous block and every
product runs along channels. Sums are written as products and `sum`, never as matmul: that is
faster for N = 16 on a CPU and keeps float32 exact whatever the matmul precision is set to.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The fastest forward plus backward of 4, 8, 16 and 32 on a CPU, at (B, D, L, N) = (16, 128, 65, 16)
# and (8, 384, 197, 16); the kept states are then no larger than one stream when N = 16.
CHUNK = 16
SOFTPLUS_THRESHOLD = 20.0

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def kept_shape(batch: int, channels: int, length: int, states: int) -> tuple[int, ...]:
    """Shape of the kept states: one (B, G, N, P) block per chunk, G, N and P folded."""
    return ((length + CHUNK - 1) // CHUNK, batch, channels * states)


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs the recurrence.

    Args:
        u: Input, (B, D, L), any real floating type.
        delta: Raw step sizes, (B, D, L).
        A: Continuous-time decay, (D, N), real or complex with negative real part.
        B: Input weights, (D, N), or (B, G, N, L) of the same number kind as A.
        C: Output weights, shaped like one of the two forms of B.
        D: Skip weights, (D,).
        delta_bias: Added to delta, (D,).
        lengths: Valid steps per sample, (B,) integers; what lies beyond counts as absent.
        delta_softplus: Whether softplus follows the bias.
        reverse: Whether time runs from L-1 down to 0.

    Returns:
        y (B, D, L) in the layout of u; last state (B, D, N); the kept states, for `backward`. All
        are float32 or float64, the states possibly complex.
    """
    x = _operands(u, delta, A, B, C, delta_bias, lengths, delta_softplus)
    length, batch, groups, width = x.u.shape
    states = A.shape[1]
    h = x.A.new_zeros(batch, groups, states, width)
    kept = h.new_empty(kept_shape(batch, groups * width, length, states))
    y = torch.empty_like(x.u)
    room = _Room(h, min(CHUNK, length))

    for chunk, span in _chunks(length, reverse):
        kept[chunk] = h.flatten(1)
        _, _, after = _states(x, span, h, room, reverse)
        y[span] = _read(after, _window(x.C, span), room)
        h = after[0 if reverse else -1].clone()

    if D is not None:
        y.addcmul_(x.u, _per_channel(D, x.u))
    return _like(y, u, x.u.dtype), h.mT.flatten(1, 2).contiguous(), kept


def backward(
    grad_y: Tensor,
    grad_last: Tensor | None,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Gradients, Tensor]:
    """Gradients of `forward` in the order u, delta, A, B, C, D, delta_bias; and y once more.

    `grad_y` (B, D, L) belongs to y, `grad_last` (B, D, N) to the last state; `kept` is the third
    result of `forward`, all else are its arguments. Complex gradients follow torch: the conjugate
    Wirtinger derivative.

    Returns:
        Each gradient in the shape, type and layout of its argument, None where it was None. y
        (B, D, L), which a gate needs and nobody kept.
    """
    x = _operands(u, delta, A, B, C, delta_bias, lengths, delta_softplus)
    length, batch, groups, width = x.u.shape
    state = (batch, groups, A.shape[1], width)
    room = _Room(x.A.new_empty(state), min(CHUNK, length))

    g = _time_first(grad_y, x.u.dtype, groups, x.padding)
    y = torch.empty_like(x.u)
    du, ds = torch.empty_like(x.u), torch.empty_like(x.u)
    dA, dB, dC = torch.zeros_like(x.A), torch.zeros_like(x.B), torch.zeros_like(x.C)
    # a[t+1] q[t+1]: what the later steps pass to the state they started from.
    carry = x.A.new_zeros(state)
    if grad_last is not None:
        carry += grad_last.to(x.A.dtype).reshape(batch, groups, width, A.shape[1]).mT

    for chunk, span in _chunks(length, not reverse):
        a, before, after = _states(x, span, kept[chunk].view(state), room, reverse)
        u_, s, g_ = x.u[span], x.s[span], g[span]
        B_, C_ = _window(x.B, span), _window(x.C, span)
        y[span] = _read(after, C_, room)

        weight = 2 * g_ if a.is_complex() else g_
        _window(dC, span).add_(_reduce(after.conj(), weight, C_, room))
        q = torch.mul(weight.unsqueeze(-2), C_.conj(), out=room.q[: len(g_)])
        carry = _adjoint(q, a, carry, reverse)

        _window(dB, span).add_(_reduce(q, s * u_, B_, room))
        dsu = torch.mul(q, B_.conj(), out=room.product[: len(g_)]).real.sum(-2)
        r = q.mul_(a.mul_(before).conj())
        ds_A = torch.mul(r, x.A.conj(), out=room.product[: len(g_)]).real.sum(-2)
        dA += r.mul_(s.unsqueeze(-2)).sum((0, 1))
        torch.mul(dsu, s, out=du[span])
        torch.addcmul(ds_A, dsu, u_, out=ds[span])

    dD = d_bias = None
    if D is not None:
        y.addcmul_(x.u, _per_channel(D, x.u))
        du.addcmul_(g, _per_channel(D, g))
        dD = (g * x.u).sum((0, 1)).flatten().to(D.dtype)
    ds = ds.mul_(x.slope) if x.slope is not None else ds
    ds = ds if x.padding is None else ds.masked_fill_(x.padding, 0)
    if delta_bias is not None:
        d_bias = ds.sum((0, 1)).flatten().to(delta_bias.dtype)
    dA = dA.mT.flatten(0, 1).to(A.dtype).contiguous()
    du, ds = _like(du, u), _like(ds, delta)
    grads = (du, ds, dA, _factor_like(dB, B), _factor_like(dC, C), dD, d_bias)
    return grads, _like(y, u, x.u.dtype)


@dataclass(frozen=True)
class _Operands:
    """The arguments, time first, in the precision of the state, padding replaced by zeros."""

    u: Tensor  # (L, B, G, P)
    s: Tensor  # (L, B, G, P), step sizes; 0 in the padding makes the step the identity
    slope: Tensor | None  # (L, B, G, P), ds / d delta where softplus was asked
    A: Tensor  # (G, N, P)
    B: Tensor  # (L, B, G, N, 1), or (1, 1, G, N, P) when constant in time
    C: Tensor
    padding: Tensor | None  # (L, B, 1, 1), True beyond `lengths`


class _Room:
    """Buffers for one chunk, allocated once per call: page faults would cost as much as the sums.

    Args:
        state: A tensor shaped (B, G, N, P) of the state's type.
        steps: Longest chunk.
    """

    def __init__(self, state: Tensor, steps: int) -> None:
        self.a = state.new_empty(steps, *state.shape)
        self.h = state.new_empty(steps + 1, *state.shape)
        self.q = torch.empty_like(self.a)
        self.product = torch.empty_like(self.a)


def _operands(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
) -> _Operands:
    double = torch.float64 in (u.dtype, A.dtype) or A.dtype == torch.complex128
    real = torch.float64 if double else torch.float32
    number = real.to_complex() if A.is_complex() else real
    groups = next((x.shape[1] for x in (B, C) if x.dim() == 4), 1)
    padding = None
    if lengths is not None:
        steps = torch.arange(u.shape[-1], device=u.device)
        padding = (steps[:, None] >= lengths)[..., None, None]

    s = _time_first(delta, real, groups, padding)
    if delta_bias is not None:
        s = s + _per_channel(delta_bias, s)
    slope = None
    if delta_softplus:
        slope = torch.where(s > SOFTPLUS_THRESHOLD, 1.0, s.sigmoid())
        s = F.softplus(s, threshold=SOFTPLUS_THRESHOLD)
    if padding is not None:
        s = s.masked_fill(padding, 0)
    return _Operands(
        u=_time_first(u, real, groups, padding),
        s=s,
        slope=slope,
        A=_grouped(A.to(number), groups),
        B=_factor(B, number, groups, padding),
        C=_factor(C, number, groups, padding),
        padding=padding,
    )


def _states(
    x: _Operands, span: slice, start: Tensor, room: _Room, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Decays a[t] and the states before and after each step of a chunk, (T, B, G, N, P)."""
    s, u = x.s[span], x.u[span]
    steps = len(s)
    a, h = room.a[:steps], room.h[: steps + 1]
    before, after = (h[1:], h[:-1]) if reverse else (h[:-1], h[1:])
    _exp_or_zero_(torch.mul(s.unsqueeze(-2), x.A, out=a))
    torch.mul((s * u).unsqueeze(-2), _window(x.B, span), out=after)
    h[-1 if reverse else 0] = start
    steps_in_order = list(zip(after.unbind(), a.unbind(), before.unbind(), strict=True))
    for h_t, a_t, h_before in reversed(steps_in_order) if reverse else steps_in_order:
        h_t.addcmul_(a_t, h_before)
    return a, before, after


def _exp_or_zero_(x: Tensor) -> Tensor:
    """Exponential in place; 0 where a real result would be denormal.

    On a CPU exp is 10 to 30 times slower where it underflows, and so is every product with a
    denormal; two more passes cost a tenth of an ordinary exp.
    """
    if x.is_complex():
        return x.exp_()
    tiny = torch.finfo(x.dtype).tiny
    return torch.threshold_(x.clamp_min_(math.log(tiny) + 1).exp_(), 3 * tiny, 0)


def _adjoint(q: Tensor, a: Tensor, carry: Tensor, reverse: bool) -> Tensor:
    """Turns q = C g into dL/dh in place, last step first; returns what leaves the chunk."""
    steps_in_order = list(zip(q.unbind(), a.conj().unbind(), strict=True))
    later: tuple[Tensor, Tensor] | None = None
    for q_t, a_t in steps_in_order if reverse else reversed(steps_in_order):
        if later is None:
            q_t.add_(carry)
        else:
            q_t.addcmul_(*later)
        later = (a_t, q_t)
    return torch.mul(*later) if later is not None else carry


def _read(h: Tensor, C: Tensor, room: _Room) -> Tensor:
    """C . h over the states, (T, B, G, P)."""
    y = torch.mul(h, C, out=room.product[: len(h)]).real.sum(-2)
    return 2 * y if h.is_complex() else y


def _reduce(states: Tensor, stream: Tensor, factor: Tensor, room: _Room) -> Tensor:
    """Gradient of B or C: states times stream, summed over the axes the factor lacks."""
    product = torch.mul(states, stream.unsqueeze(-2), out=room.product[: len(stream)])
    return product.sum(-1, keepdim=True) if factor.shape[-1] == 1 else product.sum((0, 1), True)


def _chunks(length: int, reverse: bool) -> Iterator[tuple[int, slice]]:
    spans = [slice(i, min(i + CHUNK, length)) for i in range(0, length, CHUNK)]
    numbered = list(enumerate(spans))
    return reversed(numbered) if reverse else iter(numbered)


def _window(factor: Tensor, span: slice) -> Tensor:
    """The span of a factor that varies in time; all of one that does not."""
    return factor if factor.shape[0] == 1 else factor[span]


def _time_first(x: Tensor, dtype: torch.dtype, groups: int, padding: Tensor | None) -> Tensor:
    """(B, D, L) to contiguous (L, B, G, P), zero in the padding."""
    x = x.permute(2, 0, 1).contiguous().to(dtype)
    x = x.view(*x.shape[:2], groups, x.shape[2] // groups)
    return x if padding is None else x.masked_fill(padding, 0)


def _like(x: Tensor, model: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(L, B, G, P) to (B, D, L) in the memory layout and, unless told, the type of `model`."""
    return torch.empty_like(model, dtype=dtype).copy_(x.flatten(2).permute(1, 2, 0))


def _factor(x: Tensor, dtype: torch.dtype, groups: int, padding: Tensor | None) -> Tensor:
    """B or C to (L, B, G, N, 1), or (1, 1, G, N, P) when constant."""
    if x.dim() == 2:
        return _grouped(x.to(dtype), groups)[None, None]
    x = x.permute(3, 0, 1, 2).to(dtype).contiguous().unsqueeze(-1)
    return x if padding is None else x.masked_fill(padding.unsqueeze(-1), 0)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(D, N) to (G, N, P)."""
    return x.reshape(groups, x.shape[0] // groups, x.shape[1]).mT.contiguous()


def _factor_like(x: Tensor, model: Tensor) -> Tensor:
    """Inverse of `_factor`."""
    x = x[0, 0].mT.flatten(0, 1) if model.dim() == 2 else x.squeeze(-1).permute(1, 2, 3, 0)
    return torch.empty_like(model).copy_(x)


def _per_channel(x: Tensor, stream: Tensor) -> Tensor:
    """(D,) to (G, P) in the precision of the stream."""
    return x.to(stream.dtype).reshape(stream.shape[2:])
