"""Two selective scans, one per direction of time, added and gated once (Vim, hustvl/Vim)."""

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.scan.checks import check_arguments
from blocks.scan.operator import checked_scan
from blocks.scan.paths import FORWARD, REVERSE


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
    check_arguments(u, delta, A, B, C, D, z, delta_bias, lengths)
    check_arguments(
        u if u_b is None else u_b,
        delta if delta_b is None else delta_b,
        A_b,
        B if B_b is None else B_b,
        C if C_b is None else C_b,
        D_b,
        None,
        delta_bias_b,
        lengths,
    )
    out, _ = checked_scan(
        u.unsqueeze(1) if u_b is None else torch.stack((u, u_b), 1),
        _both(delta, delta_b),
        torch.stack((A, A_b)),
        _both(B, B_b),
        _both(C, C_b),
        _both_vectors(D, D_b),
        z,
        _both_vectors(delta_bias, delta_bias_b),
        delta_softplus,
        FORWARD + REVERSE,
        None,
        lengths,
        backend,
    )
    return out


def _both(first: Tensor, second: Tensor | None) -> Tensor:
    """Both directions side by side; what they share is not copied."""
    axis = 0 if first.dim() == 2 else 1
    if second is None:
        return first.unsqueeze(axis).expand(*first.shape[:axis], 2, *first.shape[axis:])
    if first.dim() != second.dim():
        raise SuiteError(
            expected="the same form of weights in both directions",
            found=f"shapes {tuple(first.shape)} and {tuple(second.shape)}",
            where="bidirectional_scan(B=..., C=...)",
            cure="expand the constant one over time",
        )
    return torch.stack((first, second), axis)


def _both_vectors(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """(2, D); a direction without the vector has zeros, unless it inherits the forward one."""
    if first is None:
        return None if second is None else torch.stack((torch.zeros_like(second), second))
    return torch.stack((first, first if second is None else second))


def padding_mask(lengths: Tensor, length: int) -> Tensor:
    """True beyond each sample's length, (B, L)."""
    return torch.arange(length, device=lengths.device) >= lengths.unsqueeze(-1)
