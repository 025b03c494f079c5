"""The selective scan in plain torch: the definition that every other backend is tested against.

    out = silu(z) sum over paths of y,   y from the recurrence along each path

A backend is a file with these five functions. Axes: K path, B batch, D channel, L position,
G group, N state.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan import recurrence
from blocks.scan.paths import column_order

Gradients = tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None
]


def available(device: torch.device) -> tuple[bool, str]:
    """Plain torch runs wherever tensors live."""
    return True, f"plain torch on {device.type}"


def refuses(A: Tensor, B: Tensor, C: Tensor) -> str | None:
    """Why these arguments are beyond the backend: for the definition, nothing is."""
    return None


def kept_shape(
    paths: int, batch: int, groups: int, channels: int, length: int, states: int
) -> tuple[int, ...]:
    """Shape of the kept states."""
    return (paths, *recurrence.kept_shape(batch, channels, length, states))


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
    """Runs the recurrence along every path, adds up and gates.

    Args:
        u: Input, (B, K, D, L), or (B, 1, D, L) when the paths share it; any real floating type.
        delta: Raw step sizes, (B, K, D, L).
        A: Continuous-time decay, (K, D, N), real or complex with negative real part.
        B: Input weights, (K, D, N), or (B, K, G, N, L) of the same number kind as A.
        C: Output weights, shaped like one of the two forms of B.
        D: Skip weights, (K, D).
        z: Gate, (B, D, L).
        delta_bias: Added to delta, (K, D).
        lengths: Valid steps per sample, (B,) integers; what lies beyond counts as absent.
        delta_softplus: Whether softplus follows the bias.
        paths: K letters, see `blocks.scan.paths`.
        width: Columns of the grid where a path runs along columns, else 0.

    Returns:
        Output (B, D, L) in the type and layout of `u[:, 0]`; last states (B, K, D, N), float32 or
        float64 (or the complex kin); the kept states, for `backward`.
    """
    ys, last, kept = [], [], []
    for k, path in enumerate(paths):
        order = _order(path, u.shape[-1], width, u.device)
        u_k, delta_k, B_k, C_k = _streams(k, order, u, delta, B, C)
        skip, bias = (None if x is None else x[k] for x in (D, delta_bias))
        y, h, borders = recurrence.forward(
            u_k, delta_k, A[k], B_k, C_k, skip, bias, lengths, delta_softplus, path in "<^"
        )
        ys.append(_restored(y, order))
        last.append(h)
        kept.append(borders)
    out = _sum(ys)
    if z is not None:
        out.mul_(F.silu(_cleared(z, lengths).to(out.dtype)))
    like = torch.empty_like(u[:, 0])
    return like.copy_(out), torch.stack(last, 1), torch.stack(kept)


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
    """Gradients of `forward` in the order u, delta, A, B, C, D, z, delta_bias.

    `grad_out` (B, D, L) belongs to the output, `grad_last` (B, K, D, N) to the last states; `kept`
    is the third result of `forward`, all else are its arguments. With `overwrite` nobody needs u
    and delta any more: a backend may put their gradients into the same memory. Complex gradients
    follow torch: the conjugate Wirtinger derivative.

    Returns:
        Each gradient in the shape, type and layout of its argument; None where it was None.
    """
    real = torch.promote_types(torch.float32, kept.dtype.to_real())
    g = _cleared(grad_out, lengths).to(real)
    gate = None if z is None else _cleared(z, lengths).to(real)
    g_y = g if gate is None else g * F.silu(gate)

    ys, per_path = [], []
    for k, path in enumerate(paths):
        order = _order(path, u.shape[-1], width, u.device)
        u_k, delta_k, B_k, C_k = _streams(k, order, u, delta, B, C)
        skip, bias = (None if x is None else x[k] for x in (D, delta_bias))
        (du, ddelta, dA, dB, dC, dD, dbias), y = recurrence.backward(
            g_y if order is None else g_y[..., order],
            None if grad_last is None else grad_last[:, k],
            kept[k], u_k, delta_k, A[k], B_k, C_k, skip, bias, lengths, delta_softplus,
            path in "<^",
        )  # fmt: skip
        du, ddelta, dB, dC = (
            x if x.dim() == 2 else _restored(x, order) for x in (du, ddelta, dB, dC)
        )
        per_path.append((du, ddelta, dA, dB, dC, dD, dbias))
        ys.append(_restored(y, order))

    dus, ddeltas, dAs, dBs, dCs, dDs, dbiases = zip(*per_path, strict=True)
    dz = None
    if z is not None and gate is not None:
        sigmoid = gate.sigmoid()
        slope = sigmoid * (1 + gate * (1 - sigmoid))
        dz = torch.empty_like(z).copy_(slope.mul_(g).mul_(_sum(ys)))
    return (
        _like(torch.stack(dus, 1) if u.shape[1] == len(paths) else _sum(dus).unsqueeze(1), u),
        _like(torch.stack(ddeltas, 1), delta),
        torch.stack(dAs),
        _like(torch.stack(dBs, 0 if B.dim() == 3 else 1), B),
        _like(torch.stack(dCs, 0 if C.dim() == 3 else 1), C),
        None if D is None else torch.stack(dDs),
        dz,
        None if delta_bias is None else torch.stack(dbiases),
    )


def _streams(
    k: int, order: Tensor | None, u: Tensor, delta: Tensor, B: Tensor, C: Tensor
) -> list[Tensor]:
    """What path k reads, its positions in walking order: u, delta (B, D, L), B and C."""
    of_path = [u[:, min(k, u.shape[1] - 1)], delta[:, k]]
    of_path += [x[k] if x.dim() == 3 else x[:, k] for x in (B, C)]
    if order is None:
        return of_path
    return [x if x.dim() == 2 else x[..., order] for x in of_path]


def _order(path: str, length: int, width: int, device: torch.device) -> Tensor | None:
    return column_order(length, width, device) if path in "v^" else None


def _restored(x: Tensor, order: Tensor | None) -> Tensor:
    """From walking order back to the order in memory."""
    return x if order is None else torch.empty_like(x).index_copy_(-1, order, x)


def _cleared(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, D, L) with zeros beyond each sample's length."""
    if lengths is None:
        return x
    beyond = torch.arange(x.shape[-1], device=x.device) >= lengths.unsqueeze(-1)
    return x.masked_fill(beyond.unsqueeze(1), 0)


def _sum(xs: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


def _like(x: Tensor, model: Tensor) -> Tensor:
    return torch.empty_like(model).copy_(x)
