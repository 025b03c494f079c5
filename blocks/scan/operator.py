"""The selective scan along several paths, as one operator with one autograd rule.

    out = silu(z) sum over paths of scan(u, delta, A, B, C, D)

One path is Mamba, two opposite ones a bidirectional scan, four the cross scan of VMamba. Tensors
lie in memory order: walking backwards or along columns is the backend's affair, nothing is flipped
or copied. torch.compile takes the operator whole, without a graph break.

Precision: the streams u, delta, z and variable B, C are brought to their widest common type, inside
an autocast region as well as outside; A, D, delta_bias and the state are float32 (float64 as soon
as one stream or A is). The output has the type of u, the last states that of the state.

Shapes: K paths, B batch, D channels, L positions, N states, G groups (channel d of a path reads
group d // (D/G)).
"""

from typing import Any

import torch
from torch import Tensor

from blocks.operators import define_operator, differentiable
from blocks.scan.backends import choose_backend
from blocks.scan.checks import check_paths_arguments
from blocks.scan.paths import check_paths


def path_scan(
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
    paths: str,
    width: int | None = None,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Scans every path, adds up what they read, and gates the sum.

    Args:
        u: Input, (B, K, D, L), or (B, 1, D, L) when all paths read the same.
        delta: Raw step sizes, (B, K, D, L).
        A: Decay, (K, D, N), real or complex with negative real part.
        B: Input weights: constant (K, D, N), or variable (B, K, N, L) or (B, K, G, N, L). With
            complex A the constant is complex, the variable real with (re, im) interleaved.
        C: Output weights, either form, independent of B's.
        D: Skip weights, (K, D).
        z: Gate, (B, D, L), applied once, after the sum.
        delta_bias: Added to delta, (K, D).
        delta_softplus: Whether s = softplus(delta + delta_bias).
        paths: K letters, one per path: ">" forward, "<" reverse, "v" down the columns, "^" up.
        width: Columns of the grid whose rows lie behind one another; for "v" and "^".
        lengths: Valid steps per sample, (B,) integers in 0..L. Beyond them the output is 0, and
            whatever the padding holds (NaN included) changes neither results nor gradients.
        backend: A name from `scan_backends`; None takes the best one for device and arguments.

    Returns:
        Output (B, D, L) in the type of u; states (B, K, D, N) after the last step of each path.

    Raises:
        SuiteError: Shapes, types, devices, paths or the backend do not fit.
    """
    check_paths_arguments(u, delta, A, B, C, D, z, delta_bias, lengths, paths)
    check_paths(paths, u.shape[-1], width, ragged=lengths is not None)
    return checked_scan(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, paths, width, lengths, backend
    )


def checked_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    paths: str,
    width: int | None,
    lengths: Tensor | None,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """`path_scan` for a caller that has checked the arguments."""
    B, C = _variable_form(B, A), _variable_form(C, A)
    dtype = u.dtype
    for stream in (delta, z, B if B.dim() == 5 else None, C if C.dim() == 5 else None):
        if stream is not None:
            real = stream.dtype.to_real() if stream.is_complex() else stream.dtype
            dtype = torch.promote_types(dtype, real)
    out, last_states, _ = _scan(
        u.to(dtype), delta.to(dtype), A, B, C, D, None if z is None else z.to(dtype), delta_bias,
        lengths, delta_softplus, paths, width or 0, backend or "",
    )  # fmt: skip
    return out.to(u.dtype), last_states


def _forward(
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
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    # Autocast would reach into the implementation and round the state.
    with torch.autocast(u.device.type, enabled=False):
        return choose_backend(backend, A, B, C).forward(
            u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, paths, width
        )


def _fake_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, channels, length = u.shape
    paths, _, states = A.shape
    groups = next((x.shape[2] for x in (B, C) if x.dim() == 5), 1)
    double = torch.float64 in (u.dtype, A.dtype) or A.dtype == torch.complex128
    real = torch.float64 if double else torch.float32
    state = real.to_complex() if A.is_complex() else real
    backend = choose_backend(others[-1], A, B, C)
    kept = backend.kept_shape(paths, batch, groups, channels, length, states)
    return (
        torch.empty_like(u[:, 0]),
        A.new_empty((batch, *A.shape), dtype=state),
        A.new_empty(kept, dtype=state),
    )


def _backward(
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
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(u.device.type, enabled=False):
        du, ddelta, dA, dB, dC, *optional = choose_backend(backend, A, B, C).backward(
            grad_out, grad_last, kept, u, delta, A, B, C, D, z, delta_bias, lengths,
            delta_softplus, paths, width,
        )  # fmt: skip
    # An operator cannot return None: the gradient of an absent tensor is an empty one.
    dD, dz, dbias = (u.new_empty(0) if grad is None else grad for grad in optional)
    return du, ddelta, dA, dB, dC, dD, dz, dbias


def _fake_backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    kept: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    return tuple(grad_out.new_empty(0) if x is None else torch.empty_like(x) for x in arguments[:8])


_scan = define_operator("selective_scan", _forward, _fake_forward)
_scan_backward = define_operator("selective_scan_backward", _backward, _fake_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, ctx.paths, ctx.width, ctx.backend = inputs
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
        grad_out = torch.zeros_like(tensors[0][:, 0])
    grads = _scan_backward(
        grad_out, grad_last, kept, *tensors, ctx.delta_softplus, ctx.paths, ctx.width, ctx.backend
    )
    present = (None if x is None else grad for x, grad in zip(tensors[:-1], grads, strict=True))
    return *present, None, None, None, None, None


differentiable(
    "selective_scan", _differentiate, _save, "differentiate a plain loop over time twice instead"
)


def _variable_form(x: Tensor, A: Tensor) -> Tensor:
    """(B, K, [G,] N, L) to (B, K, G, N, L), complex when A is; a constant stays."""
    if x.dim() == 3:
        return x
    x = x.unsqueeze(2) if x.dim() == 4 else x
    if not A.is_complex():
        return x
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.view_as_complex(x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2).contiguous())
