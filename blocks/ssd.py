"""The state-space dual form of Mamba-2 (Dao and Gu, 2024, section 6): a scan made of matmuls.

    h[t] = exp(dt[t] A) h[t-1] + dt[t] x[t] B[t]^T        y[t] = h[t] C[t]

One decay per head makes a chunk of the sequence a masked attention, (C B^T * M) (dt x) with
M[i, j] = exp(sum of dt A over j+1..i); chunks hand each other the state. The recurrence is that of
state-spaces/mamba's `mamba_chunk_scan_combined`, reversible in time and in float64 too.

Shapes: B batch, L time, H heads, P head width, G groups of heads that share B and C (head h reads
group h // (H/G)), N states. Axes of the equations: b batch, t chunk, i and j steps of a chunk
(output and input), g group, k head in its group, p channel of a head, n state.
"""

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.errors import SuiteError
from blocks.scan.bidirectional import padding_mask

# The fastest forward plus backward of 16, 32, 64, 128 and 256 on a CPU, at (B, L, H, P, N) =
# (8, 197, 6, 64, 128) and (1, 4096, 6, 64, 128); 32 is 6 % faster when N = 64. Longer chunks keep
# more memory: B L H times their length.
CHUNK_SIZE = 64


@overload
def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    chunk_size: int = CHUNK_SIZE,
    initial_states: Tensor | None = None,
    return_final_state: Literal[False] = False,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> Tensor: ...


@overload
def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    chunk_size: int = CHUNK_SIZE,
    initial_states: Tensor | None = None,
    return_final_state: Literal[True],
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]: ...


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    chunk_size: int = CHUNK_SIZE,
    initial_states: Tensor | None = None,
    return_final_state: bool = False,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan with one decay per head, in chunks; differentiable in every floating argument.

    Computes in float32, in float64 if x or dt is, inside an autocast region too; the matmuls obey
    `torch.set_float32_matmul_precision`. Memory is linear in L. All exponents are sums of dt A,
    never differences of sums: none is positive, none cancels.

    Args:
        x: Input, (B, L, H, P).
        dt: Step sizes, (B, L, H), not negative: softplus and limits have been applied.
        A: Decay, (H,), negative.
        B: Input weights, (B, L, G, N).
        C: Output weights, (B, L, G, N).
        chunk_size: Most steps per chunk; sequences are cut into equal chunks. Changes speed only.
        initial_states: State before the first step, (B, H, P, N); zeros by default.
        return_final_state: Whether to return the last state too; gradients flow through it.
        lengths: Valid steps per sample, (B,) integers in 0..L. Beyond them the output is 0, and
            whatever the padding holds (NaN included) changes neither results nor gradients.
        reverse: Whether time runs from L-1 down to 0: flip(ssd(flip(...))) without flipping x.

    Returns:
        Output (B, L, H, P) in the type of x; with `return_final_state` also the state
        (B, H, P, N) after the last valid step, which is t = 0 in reverse, float32 or float64.

    Raises:
        SuiteError: Shapes do not fit.
    """
    _check(x, dt, A, B, C, chunk_size, initial_states, lengths)
    narrow = x.dtype
    padding = None if lengths is None else padding_mask(lengths, x.shape[1])
    x, dt, B, C = (_zero(v, padding) for v in (x, dt, B, C))
    wide = torch.promote_types(torch.promote_types(x.dtype, dt.dtype), torch.float32)
    x, dt, A, B, C = (v.to(wide) for v in (x, dt, A, B, C))
    batch, length, heads, head_dim = x.shape
    groups, states = B.shape[2:]
    state = x.new_zeros(batch, heads, head_dim, states)
    if initial_states is not None:
        state = initial_states.to(wide)

    with torch.autocast(x.device.type, enabled=False):
        y, state = _chunked(
            torch.unflatten(_cut(x * dt.unsqueeze(-1), chunk_size), 3, (groups, -1)),
            torch.unflatten(_cut(dt * A, chunk_size), 3, (groups, -1)).movedim(2, -1),
            _cut(B, chunk_size),
            _cut(C, chunk_size),
            torch.unflatten(state, 1, (groups, -1)),
            reverse,
        )
    y = _zero(y.flatten(1, 2)[:, :length].flatten(2, 3).to(narrow), padding)
    return (y, state.flatten(1, 2)) if return_final_state else y


def _chunked(
    u: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """The dual form.

    Args:
        u: dt x, (b, t, j, g, k, p).
        log_decay: dt A, (b, t, g, k, j).
        B: (b, t, j, g, n).
        C: (b, t, i, g, n).
        state: Before the first step, (b, g, k, p, n).
        reverse: Whether time runs backwards.

    Returns:
        Output, (b, t, i, g, k, p), and the last state.
    """
    M = _decay_between_steps(log_decay, reverse)
    since_entry = _sum_so_far(log_decay, reverse).exp()
    last = 0 if reverse else -1

    scores = torch.einsum("btign,btjgn->btgij", C, B).unsqueeze(3) * M
    y = torch.einsum("btgkij,btjgkp->btigkp", scores, u)

    until_exit = M[..., last, :].movedim(-1, 2).unsqueeze(-1)
    added = torch.einsum("btjgkp,btjgn->btgkpn", u * until_exit, B)
    entering, state = _hand_over(added, since_entry[..., last], state, reverse)
    carried = torch.einsum("btign,btgkpn->btigkp", C, entering)
    return y + carried * since_entry.movedim(-1, 2).unsqueeze(-1), state


def _decay_between_steps(log_decay: Tensor, reverse: bool) -> Tensor:
    """M[i, j], the decay from step j to step i, 0 where i comes before j; (..., i, j)."""
    steps = log_decay.shape[-1]
    if reverse:
        # Backwards, i < j are i..j-1 apart: what lies between them forwards, one step later.
        log_decay = F.pad(log_decay, (1, -1))
    past = torch.ones(steps, steps, dtype=torch.bool, device=log_decay.device).tril()
    # Adding up only what lies between i and j keeps the digits that a difference of two long sums
    # would lose.
    between = log_decay.unsqueeze(-1).masked_fill(~past.tril(-1), 0).cumsum(-2)
    M = between.masked_fill(~past, -torch.inf).exp()
    return M.mT if reverse else M


def _sum_so_far(x: Tensor, reverse: bool) -> Tensor:
    """Cumulative sum over the last axis in the order of time."""
    return x.flip(-1).cumsum(-1).flip(-1) if reverse else x.cumsum(-1)


def _hand_over(added: Tensor, kept: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The recurrence over chunks.

    Args:
        added: What each chunk adds to the state, (b, t, g, k, p, n).
        kept: The share of the state that survives it, (b, t, g, k).
        state: Before the first chunk, (b, g, k, p, n).
        reverse: Whether time runs backwards.

    Returns:
        The states that enter the chunks, (b, t, g, k, p, n), and the last one.
    """
    entering = []
    order = slice(None, None, -1 if reverse else 1)
    for more, share in list(zip(added.unbind(1), kept.unbind(1), strict=True))[order]:
        entering.append(state)
        state = share[..., None, None] * state + more
    return torch.stack(entering[order], dim=1), state


def _cut(x: Tensor, chunk_size: int) -> Tensor:
    """(B, L, ...) as (B, chunks, steps, ...), zeros after the end: with dt = 0 nothing happens."""
    length = x.shape[1]
    chunks = max(-(-length // chunk_size), 1)
    steps = max(-(-length // chunks), 1)
    missing = chunks * steps - length
    if missing:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
    return torch.unflatten(x, 1, (chunks, steps))


def _zero(x: Tensor, padding: Tensor | None) -> Tensor:
    """(B, L, ...) with zeros where `padding` (B, L) is true, whatever stood there."""
    if padding is None:
        return x
    return x.masked_fill(padding.view(*padding.shape, *(1,) * (x.dim() - 2)), 0)


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    initial_states: Tensor | None,
    lengths: Tensor | None,
) -> None:
    if x.dim() != 4:
        raise _misfit("x", "a tensor (batch, time, heads, head width)", x)
    batch, length, heads, head_dim = x.shape
    if B.dim() != 4 or B.shape[:2] != x.shape[:2] or B.shape[2] < 1 or heads % B.shape[2]:
        expected = f"shape ({batch}, {length}, groups, states) with groups dividing {heads} heads"
        raise _misfit("B", expected, B)
    expected_shapes = (
        ("dt", dt, (batch, length, heads)),
        ("A", A, (heads,)),
        ("C", C, tuple(B.shape)),
        ("initial_states", initial_states, (batch, heads, head_dim, B.shape[3])),
        ("lengths", lengths, (batch,)),
    )
    for name, tensor, shape in expected_shapes:
        if tensor is not None and tensor.shape != shape:
            raise _misfit(name, f"shape {shape}", tensor)
    if lengths is not None and (lengths.is_floating_point() or lengths.dtype == torch.bool):
        raise SuiteError(
            expected="integers",
            found=str(lengths.dtype),
            where="ssd(lengths=...)",
            cure="count the valid steps of each sample, for example mask.sum(1)",
        )
    if chunk_size < 1:
        raise SuiteError(
            expected="at least 1 step per chunk",
            found=repr(chunk_size),
            where="ssd(chunk_size=...)",
            cure=f"use the default, {CHUNK_SIZE}",
        )


def _misfit(name: str, expected: str, x: Tensor) -> SuiteError:
    return SuiteError(
        expected=expected,
        found=f"shape {tuple(x.shape)}",
        where=f"ssd({name}=...)",
        cure="shapes are listed in the docstring of blocks.ssd",
    )
