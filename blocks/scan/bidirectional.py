"""Two selective scans, one per direction of time, added and gated once (Vim, hustvl/Vim)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.checks import expect_shape
from blocks.scan.dispatch import selective_scan


def bidirectional_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    u_b: Tensor | None = None,
    delta_b: Tensor | None = None,
    A_b: Tensor,
    B_b: Tensor | None = None,
    C_b: Tensor | None = None,
    D_b: Tensor | None = None,
    delta_bias_b: Tensor | None = None,
    delta_softplus: bool = False,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Sum of a forward and a reverse selective scan, gated once.

    Source: hustvl/Vim. Arguments ending in `_b` belong to the reverse scan and default to the
    forward ones: with `A_b` alone this is "v1" (the skip D u then counts twice), with all of them
    "v2". Gating the sum equals gating each direction.

    Args:
        u: Input, (B, D, L).
        delta: Raw step sizes, (B, D, L).
        A: Decay, (D, N).
        B: Input weights, any form of `selective_scan`.
        C: Output weights, likewise.
        D: Skip weights, (D,).
        z: Gate, (B, D, L).
        delta_bias: Added to delta, (D,).
        u_b: Input of the reverse scan, in the same time order as u.
        delta_b: Its raw step sizes.
        A_b: Its decay.
        B_b: Its input weights.
        C_b: Its output weights.
        D_b: Its skip weights.
        delta_bias_b: Its step bias.
        delta_softplus: Whether softplus follows the bias, in both directions.
        lengths: Valid steps per sample, (B,); see `selective_scan`.
        backend: See `selective_scan`.

    Returns:
        Output (B, D, L) in the type of u, not halved.
    """
    y_f = selective_scan(
        u, delta, A, B, C, D,
        delta_bias=delta_bias, delta_softplus=delta_softplus, lengths=lengths, backend=backend,
    )  # fmt: skip
    y_b = selective_scan(
        _either(u_b, u), _either(delta_b, delta), A_b, _either(B_b, B), _either(C_b, C),
        D if D_b is None else D_b,
        delta_bias=delta_bias if delta_bias_b is None else delta_bias_b,
        delta_softplus=delta_softplus, reverse=True, lengths=lengths, backend=backend,
    )  # fmt: skip
    y = y_f + y_b
    if z is None:
        return y
    expect_shape("z", z, tuple(u.shape))
    if lengths is not None:
        z = z.masked_fill(padding_mask(lengths, u.shape[-1]).unsqueeze(1), 0)
    return (y * F.silu(z)).to(u.dtype)


def padding_mask(lengths: Tensor, length: int) -> Tensor:
    """True beyond each sample's length, (B, L)."""
    return torch.arange(length, device=lengths.device) >= lengths.unsqueeze(-1)


def _either(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first
