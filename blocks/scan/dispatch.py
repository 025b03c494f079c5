"""The selective scan as one operator with one autograd rule and a table of backends.

`selective_scan` has the contract of `selective_scan_fn` in state-spaces/mamba, plus reverse time,
ragged batches and float64. torch.compile takes the operator whole, without a graph break. A further
backend is one file with the four functions of `reference` and one row in `BACKENDS`.

Precision: the streams u, delta, z and variable B, C are brought to their widest common type, inside
an autocast region as well as outside; A, D, delta_bias and the state are float32 (float64 as soon
as one stream or A is). The output has the type of u, the last state that of the state.

Shapes: B batch, D channels, L time, N states, G groups (channel d reads group d // (D/G)).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.scan import reference
from blocks.scan.checks import check_arguments


@dataclass(frozen=True)
class Backend:
    """One implementation of the scan. Signatures and shapes are those of `reference`.

    Args:
        available: Tells whether it runs on a device, and why (not).
        forward: Output, last state, and whatever `backward` needs of the states.
        backward: Gradients of the eight tensors.
        checkpoint_shape: Shape of the kept states for (batch, channels, length, states).
    """

    available: Callable[[torch.device], tuple[bool, str]]
    forward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    backward: Callable[..., reference.Gradients]
    checkpoint_shape: Callable[[int, int, int, int], tuple[int, ...]]


# In order of preference: the first that is available on a device serves it.
BACKENDS = {
    "reference": Backend(
        reference.available, reference.forward, reference.backward, reference.checkpoint_shape
    ),
}


def scan_backends(device: torch.device | str) -> list[tuple[str, bool, str]]:
    """All backends as (name, usable on this device, why), best first."""
    device = torch.device(device)
    return [(name, *backend.available(device)) for name, backend in BACKENDS.items()]


def active_backend(device: torch.device | str) -> tuple[str, str]:
    """The backend that serves a device when none is asked for, and why it is usable."""
    return next((name, why) for name, usable, why in scan_backends(device) if usable)


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: Literal[False] = False,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    return_last_state: Literal[True],
    reverse: bool = False,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan (S6): h[t] = exp(s A) h[t-1] + s B u, out = (C h + D u) silu(z).

    Source: state-spaces/mamba, `selective_scan_fn`; same order of arguments.

    Args:
        u: Input, (B, D, L).
        delta: Raw step sizes, (B, D, L).
        A: Decay, (D, N), real or complex with negative real part.
        B: Input weights: constant (D, N), or variable (B, N, L) or (B, G, N, L). With complex A
            the constant is complex, the variable real with (re, im) interleaved: (..., 2L).
        C: Output weights, either form, independent of B's.
        D: Skip weights, (D,).
        z: Gate, (B, D, L), applied after the skip.
        delta_bias: Added to delta, (D,).
        delta_softplus: Whether s = softplus(delta + delta_bias).
        return_last_state: Whether to return the last state too; gradients flow through it.
        reverse: Whether time runs from L-1 down to 0: flip(scan(flip(...))) without a flip.
        lengths: Valid steps per sample, (B,) integers in 0..L. Beyond them the output is 0, and
            whatever the padding holds (NaN included) changes neither results nor gradients.
        backend: A name from `scan_backends`; None takes the best one for the device.

    Returns:
        Output (B, D, L) in the type of u; with `return_last_state` also the state (B, D, N) after
        the last valid step, which is t = 0 for a reverse scan.

    Raises:
        SuiteError: Shapes, types, devices or the backend do not fit.
    """
    check_arguments(u, delta, A, B, C, D, z, delta_bias, lengths)
    name = _choose(backend, u.device)
    B, C = _variable_form(B, A), _variable_form(C, A)
    dtype = u.dtype
    for stream in (delta, z, B if B.dim() == 4 else None, C if C.dim() == 4 else None):
        if stream is not None:
            real = stream.dtype.to_real() if stream.is_complex() else stream.dtype
            dtype = torch.promote_types(dtype, real)
    out, last_state, _ = _scan(
        u.to(dtype), delta.to(dtype), A, B, C, D, None if z is None else z.to(dtype), delta_bias,
        lengths, delta_softplus, reverse, name,
    )  # fmt: skip
    out = out.to(u.dtype)
    return (out, last_state) if return_last_state else out


selective_scan_fn = selective_scan


@torch.library.custom_op("bimamba::selective_scan", mutates_args=())
def _scan(
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
    reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    # Autocast would reach into the implementation and round the state.
    with torch.autocast(u.device.type, enabled=False):
        return BACKENDS[backend].forward(
            u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, reverse
        )


@_scan.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    double = torch.float64 in (u.dtype, A.dtype) or A.dtype == torch.complex128
    real = torch.float64 if double else torch.float32
    state = real.to_complex() if A.is_complex() else real
    kept = BACKENDS[others[-1]].checkpoint_shape(batch, channels, length, A.shape[1])
    return (
        torch.empty_like(u),
        A.new_empty((batch, *A.shape), dtype=state),
        A.new_empty(kept, dtype=state),
    )


# An operator cannot return None: the gradient of an absent tensor is an empty one.
@torch.library.custom_op("bimamba::selective_scan_backward", mutates_args=())
def _scan_backward(
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
    reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(u.device.type, enabled=False):
        du, ddelta, dA, dB, dC, *optional = BACKENDS[backend].backward(
            grad_out, grad_last, kept, u, delta, A, B, C, D, z, delta_bias, lengths,
            delta_softplus, reverse,
        )  # fmt: skip
    dD, dz, dbias = (u.new_empty(0) if grad is None else grad for grad in optional)
    return du, ddelta, dA, dB, dC, dD, dz, dbias


@_scan_backward.register_fake
def _(
    grad_out: Tensor,
    grad_last: Tensor | None,
    kept: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    return tuple(grad_out.new_empty(0) if x is None else torch.empty_like(x) for x in arguments[:8])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, ctx.reverse, ctx.backend = inputs
    ctx.save_for_backward(output[2], *tensors)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any,
    grad_out: Tensor | None,
    grad_last: Tensor | None,
    _: Tensor | None,
) -> tuple[Tensor | None, ...]:
    kept, *tensors = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    grads = _scan_backward(
        grad_out, grad_last, kept, *tensors, ctx.delta_softplus, ctx.reverse, ctx.backend
    )
    present = (None if x is None else grad for x, grad in zip(tensors[:-1], grads, strict=True))
    return *present, None, None, None, None


_scan.register_autograd(_differentiate, setup_context=_save)


def _variable_form(x: Tensor, A: Tensor) -> Tensor:
    """(B, [G,] N, L) to (B, G, N, L), complex when A is; a constant stays."""
    if x.dim() == 2:
        return x
    x = x.unsqueeze(1) if x.dim() == 3 else x
    if not A.is_complex():
        return x
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.view_as_complex(x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2).contiguous())


def _choose(backend: str | None, device: torch.device) -> str:
    if backend is None:
        return active_backend(device)[0]
    if backend not in BACKENDS:
        raise SuiteError(
            expected="one of " + ", ".join(BACKENDS),
            found=repr(backend),
            where="selective_scan(backend=...)",
            cure="leave it out to get the best backend of the device",
        )
    usable, why = BACKENDS[backend].available(device)
    if not usable:
        raise SuiteError(
            expected=f"a backend that runs on {device}",
            found=f"{backend}, which does not: {why}",
            where="selective_scan(backend=...)",
            cure="leave it out to get the best backend of the device",
        )
    return backend
