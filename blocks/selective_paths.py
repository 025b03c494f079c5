"""What a Mamba mixer does between its outer projections, along several paths, as one operator.

    u = silu(conv(x));  [dt, B, C] = x_proj u;  delta = dt_proj dt
    out = silu(z) sum over paths of scan(u, delta, A, B, C, D)

Kept for the backward pass are the input, the narrow [dt, B, C] and the states between tiles. u and
delta, the widest tensors of a mixer, are computed again, and their gradients written over them.

Axes: K path, B batch, D channel, L position, N state, R rank of the step sizes, W tap.
"""

from typing import Any

import torch
from torch import Tensor

from blocks.conv.operator import conv_backend
from blocks.operators import define_operator, differentiable
from blocks.scan.backends import choose_backend
from blocks.scan.checks import check_range


def selective_paths(
    x: Tensor,
    z: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj_weight: Tensor,
    dt_proj_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    *,
    paths: str,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolves, selects and scans along every path, adds up and gates.

    Inside an autocast region the two projections compute in its type, the rest as without.

    Args:
        x: Input, (B, D, L).
        z: Gate, (B, D, L).
        conv_weight: (K, D, W).
        conv_bias: (K, D).
        x_proj_weight: (K, R + 2N, D).
        dt_proj_weight: (K, D, R).
        A: Decay, (K, D, N), real and negative.
        D: Skip weights, (K, D).
        dt_bias: Added to delta before the softplus, (K, D).
        paths: K letters, ">" forward or "<" reverse.
        lengths: Valid steps per sample, (B,) integers; beyond them the output is 0.
        backend: Of the scan; see `blocks.scan.backends`.

    Returns:
        (B, D, L) in the type of x.

    Raises:
        SuiteError: A length is outside 0..L.
    """
    if lengths is not None:
        check_range(lengths, x.shape[-1])
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        low = torch.get_autocast_dtype(device)
        x, z = x.to(low), z.to(low)
    x_proj_weight, dt_proj_weight = x_proj_weight.to(x.dtype), dt_proj_weight.to(x.dtype)
    out: Tensor = _selective_paths(
        x, z, conv_weight, conv_bias, x_proj_weight, dt_proj_weight, A, D, dt_bias,
        lengths, paths, backend or "",
    )[0]  # fmt: skip
    return out


def select_paths(
    u: Tensor, x_proj_weight: Tensor, dt_proj_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The input-dependent parameters of K scans, each over a stream of its own.

    Args:
        u: (B, K, D, L).
        x_proj_weight: (K, R + 2N, D).
        dt_proj_weight: (K, D, R).

    Returns:
        Raw step sizes (B, K, D, L) without their bias; B and C, (B, K, 1, N, L).
    """
    projected = torch.bmm(_rows(u), x_proj_weight.mT)
    return _select(projected, dt_proj_weight, u[:, 0].shape)


def _forward(
    x: Tensor,
    z: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj_weight: Tensor,
    dt_proj_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    lengths: Tensor | None,
    paths: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        u = conv_backend(x).forward(x, conv_weight, conv_bias, lengths, True, paths)
        projected = torch.bmm(_rows(u), x_proj_weight.mT)
        delta, B, C = _select(projected, dt_proj_weight, x.shape)
        out, _, kept = choose_backend(backend, A, B, C).forward(
            u, delta, A, B, C, D, z, dt_bias, lengths, True, paths, 0
        )
    return out, projected, kept


def _fake_forward(
    x: Tensor,
    z: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj_weight: Tensor,
    dt_proj_weight: Tensor,
    A: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = x.shape
    projected = x.new_empty((len(A), batch * length, x_proj_weight.shape[1]))
    B, C = (_select(projected, dt_proj_weight, x.shape)[i] for i in (1, 2))
    shape = choose_backend(others[-1], A, B, C).kept_shape(
        len(A), batch, 1, channels, length, A.shape[-1]
    )
    state = torch.float64 if torch.float64 in (x.dtype, A.dtype) else torch.float32
    # Laid out like what the convolution hands to the scan: channels last.
    out = x.new_empty((batch, length, channels)).mT
    return out, projected, A.new_empty(shape, dtype=state)


def _backward(
    grad: Tensor,
    projected: Tensor,
    kept: Tensor,
    x: Tensor,
    z: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj_weight: Tensor,
    dt_proj_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    lengths: Tensor | None,
    paths: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rank = dt_proj_weight.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        conv = conv_backend(x)
        u = conv.forward(x, conv_weight, conv_bias, lengths, True, paths)
        delta, B, C = _select(projected, dt_proj_weight, x.shape)
        du, ddelta, dA, dB, dC, dD, dz, dbias = choose_backend(backend, A, B, C).backward(
            grad, None, kept, u, delta, A, B, C, D, z, dt_bias, lengths, True, paths, 0,
            overwrite=True,
        )  # fmt: skip
        assert dD is not None and dz is not None and dbias is not None
        del u, delta
        ddelta_KTD = _rows(ddelta)
        dprojected = torch.cat(
            (torch.bmm(ddelta_KTD, dt_proj_weight), _rows(dB.squeeze(2)), _rows(dC.squeeze(2))), -1
        )
        ddt_proj_weight = torch.bmm(ddelta_KTD.mT, projected[..., :rank])
        del ddelta, ddelta_KTD
        u = conv.forward(x, conv_weight, conv_bias, lengths, True, paths)
        dx_proj_weight = torch.bmm(dprojected.mT, _rows(u))
        del u
        du = _streams(_rows(du).baddbmm_(dprojected, x_proj_weight), x.shape)
        dx, dconv_weight, dconv_bias = conv.backward(
            du, x, conv_weight, conv_bias, lengths, True, paths
        )
    return (
        dx, dz, dconv_weight, dconv_bias, dx_proj_weight, ddt_proj_weight, dA, dD, dbias,
    )  # fmt: skip


def _fake_backward(
    grad: Tensor, projected: Tensor, kept: Tensor, *arguments: Any
) -> tuple[Tensor, ...]:
    return tuple(grad.new_empty(0) if a is None else torch.empty_like(a) for a in arguments[:9])


def _rows(x: Tensor) -> Tensor:
    """(B, K, D, L) as (K, B L, D), without a copy where the channels are last in memory."""
    return x.permute(1, 0, 3, 2).flatten(1, 2)


def _streams(rows: Tensor, shape: torch.Size) -> Tensor:
    """(K, B L, C) as (B, K, C, L), for an input of `shape` (B, D, L)."""
    return rows.view(len(rows), shape[0], shape[2], rows.shape[-1]).permute(1, 0, 3, 2)


def _select(
    projected: Tensor, dt_proj_weight: Tensor, shape: torch.Size
) -> tuple[Tensor, Tensor, Tensor]:
    """Raw step sizes (B, K, D, L); B and C, (B, K, 1, N, L), for an input of `shape`."""
    rank = dt_proj_weight.shape[-1]
    states = (projected.shape[-1] - rank) // 2
    dt, B, C = torch.split(projected, [rank, states, states], dim=-1)
    delta = torch.bmm(dt, dt_proj_weight.mT)
    delta, B, C = (_streams(rows, shape) for rows in (delta, B, C))
    return delta, B.unsqueeze(2), C.unsqueeze(2)


_selective_paths = define_operator("selective_paths", _forward, _fake_forward)
_selective_paths_backward = define_operator("selective_paths_backward", _backward, _fake_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.paths, ctx.backend = inputs
    ctx.save_for_backward(output[1], output[2], *tensors)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    projected, kept, *tensors = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros_like(tensors[0])
    grads = _selective_paths_backward(grad, projected, kept, *tensors, ctx.paths, ctx.backend)
    present = (None if x is None else g for x, g in zip(tensors[:-1], grads, strict=True))
    return *present, None, None, None


differentiable(
    "selective_paths",
    _differentiate,
    _save,
    "use torch.nn.functional.conv1d, and a plain loop over time for the scan",
)
