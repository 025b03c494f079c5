"""The selective scan in one direction, with the contract of `selective_scan_fn` in mamba_ssm.

Source: state-spaces/mamba. To that contract it adds reverse time, ragged batches and float64. It is
one path of `path_scan`.

Shapes: B batch, D channels, L time, N states, G groups (channel d reads group d // (D/G)).
"""

from typing import Literal, overload

from torch import Tensor

from blocks.scan.checks import check_arguments
from blocks.scan.operator import checked_scan
from blocks.scan.paths import FORWARD, REVERSE


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
    out, last_state = checked_scan(
        u.unsqueeze(1),
        delta.unsqueeze(1),
        A.unsqueeze(0),
        B.unsqueeze(0 if B.dim() == 2 else 1),
        C.unsqueeze(0 if C.dim() == 2 else 1),
        None if D is None else D.unsqueeze(0),
        z,
        None if delta_bias is None else delta_bias.unsqueeze(0),
        delta_softplus,
        REVERSE if reverse else FORWARD,
        None,
        lengths,
        backend,
    )
    return (out, last_state.squeeze(1)) if return_last_state else out


selective_scan_fn = selective_scan
