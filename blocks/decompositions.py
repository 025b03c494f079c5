"""What the suite's operators are made of, for programs that have none of them.

The convolution becomes torch's own, the scan everything but its recurrence, which stays one small
operator, `bimamba::recurrence`: a loop over time, which ONNX has as `Scan`. Nothing here knows the
length of a sequence, so an exported graph serves all of them; what a scan keeps for its backward
pass would tie it to a number of tiles.

    with Decomposed():
        exported = torch.export.export(network, ...)

Axes: K path, B batch, G group, D channel, L position, N state, R rank of the step sizes, W tap.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from blocks.conv.reference import cleared
from blocks.errors import SuiteError
from blocks.operators import define_operator
from blocks.scan.backends import choose_backend
from blocks.scan.paths import FORWARD, REVERSE, column_order
from blocks.selective_paths import select_paths


def decomposed_scan(
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
    """`bimamba::selective_scan` for inference: nothing is kept for a backward pass.

    Arguments and results are those of `blocks.scan.reference.forward`.

    Raises:
        SuiteError: A is complex, or B or C constant in time.
    """
    if A.is_complex() or B.dim() == 3 or C.dim() == 3:
        raise SuiteError(
            expected="a scan with real A and with B and C that vary in time",
            found="a complex A" if A.is_complex() else "a constant B or C",
            where="export of bimamba::selective_scan",
            cure="expand constants over time; a complex scan cannot leave the suite",
        )
    double = torch.float64 in (u.dtype, A.dtype)
    real = torch.float64 if double else torch.float32
    length = u.shape[-1]
    total, last = None, []
    for k, path in enumerate(paths):
        x = cleared(u[:, min(k, u.shape[1] - 1)], lengths).to(real)
        s = cleared(delta[:, k], lengths).to(real)
        s = s if delta_bias is None else s + delta_bias[k].to(real).unsqueeze(-1)
        s = cleared(F.softplus(s) if delta_softplus else s, lengths)
        B_k, C_k = (cleared(v[:, k], lengths).to(real) for v in (B, C))
        skipped = None if D is None else x * D[k].to(real).unsqueeze(-1)
        if path in "v^":
            order = column_order(length, width, u.device)
            x, s, B_k, C_k = (v[..., order] for v in (x, s, B_k, C_k))
        y, h = torch.ops.bimamba.recurrence(x, s, A[k].to(real), B_k, C_k, path in "<^")
        if path in "v^":
            y = y[..., column_order(length, length // width, u.device)]
        y = y if skipped is None else y + skipped
        total = y if total is None else total + y
        last.append(h)
    assert total is not None
    if z is not None:
        total = total * F.silu(cleared(z, lengths).to(real))
    return total.to(u.dtype), torch.stack(last, 1), A.new_empty(0, dtype=real)


def decomposed_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> Tensor:
    """`bimamba::path_conv` by torch's convolution; arguments as of `blocks.conv.reference`."""
    wide = torch.promote_types(x.dtype, weight.dtype)
    past = weight.shape[-1] - 1
    x_ = cleared(x, lengths).to(wide)
    ys = []
    for k, path in enumerate(paths):
        taps = weight[k].to(wide).unsqueeze(1)
        taps, room = (taps, (past, 0)) if path == ">" else (taps.flip(-1), (0, past))
        own = None if bias is None else bias[k].to(wide)
        ys.append(F.conv1d(F.pad(x_, room), taps, own, groups=x.shape[1]))
    y = torch.stack(ys, 1)
    return cleared(F.silu(y) if silu else y, lengths).to(x.dtype)


def decomposed_paths(
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
    """`bimamba::selective_paths` for inference; arguments as of `blocks.selective_paths`."""
    u = decomposed_conv(x, conv_weight, conv_bias, lengths, True, paths)
    delta, B, C = select_paths(u, x_proj_weight, dt_proj_weight)
    out, _, nothing = decomposed_scan(
        u, delta, A, B, C, D, z, dt_bias, lengths, True, paths, 0, backend
    )
    return out, nothing, nothing


class Decomposed(TorchFunctionMode):
    """Within it, the suite's operators run as their parts."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replaces an operator of ours, passes on everything else."""
        name = getattr(func, "__name__", "").removesuffix(".default")
        parts = _PARTS.get(name) if "bimamba" in str(func) else None
        return (parts or func)(*args, **(kwargs or {}))


_PARTS: dict[str, Callable[..., Any]] = {
    "selective_scan": decomposed_scan,
    "path_conv": decomposed_conv,
    "selective_paths": decomposed_paths,
}


def _recurrence(
    u: Tensor, s: Tensor, A: Tensor, B: Tensor, C: Tensor, backwards: bool
) -> tuple[Tensor, Tensor]:
    """Y (B, D, L) and the last state (B, D, N) from u, s (B, D, L), A (D, N), B, C (B, G, N, L)."""
    u, s, B, C = (x.unsqueeze(1) for x in (u, s, B, C))
    A = A.unsqueeze(0)
    y, last, _ = choose_backend("", A, B, C).forward(
        u, s, A, B, C, None, None, None, None, False, REVERSE if backwards else FORWARD, 0
    )
    return y, last.squeeze(1).clone()


def _fake_recurrence(
    u: Tensor, s: Tensor, A: Tensor, B: Tensor, C: Tensor, backwards: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(u), u.new_empty((u.shape[0], *A.shape))


define_operator("recurrence", _recurrence, _fake_recurrence)
