"""The depthwise convolution along paths in plain torch: the definition.

    out[k, t] = act(bias[k] + sum_i weight[k, i] x[t - (W-1) + i])      path ">"
    out[k, t] = act(bias[k] + sum_i weight[k, i] x[t + (W-1) - i])      path "<"

Axes: K path, B batch, D channel, L time, W tap.
"""

import torch
from torch import Tensor


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> Tensor:
    """Convolves along every path.

    Args:
        x: Input, (B, D, L).
        weight: Taps, (K, D, W), oldest first on the path.
        bias: (K, D).
        lengths: Valid steps per sample, (B,); beyond them the input counts as 0, the output is 0.
        silu: Whether x sigmoid(x) follows.
        paths: K letters, ">" or "<".

    Returns:
        (B, K, D, L) in the type of x, each path contiguous with the channels last.
    """
    x = cleared(x, lengths)
    out = new_output(x, len(paths))
    for k, path in enumerate(paths):
        p = _preactivation(x, weight[k], None if bias is None else bias[k], path)
        out[:, k] = cleared(p * p.sigmoid() if silu else p, lengths)
    return out


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none); arguments as for `forward`."""
    x = cleared(x, lengths)
    dx = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
    dweight = torch.zeros_like(weight, dtype=dx.dtype)
    dbias = dx.new_zeros(weight.shape[:2])
    for k, path in enumerate(paths):
        g = cleared(grad[:, k], lengths).to(dx.dtype)
        if silu:
            p = _preactivation(x, weight[k], None if bias is None else bias[k], path).to(dx.dtype)
            s = p.sigmoid()
            g = g * s * (1 + p * (1 - s))
        for tap, here, there in _taps(weight.shape[-1], x.shape[-1], path):
            dx[..., there] += g[..., here] * weight[k, :, tap, None]
            dweight[k, :, tap] = (g[..., here] * x[..., there]).sum((0, 2))
        dbias[k] = g.sum((0, 2))
    db = dbias.new_empty(0) if bias is None else dbias.to(bias.dtype)
    return cleared(dx, lengths).to(x.dtype), dweight.to(weight.dtype), db


def new_output(x: Tensor, paths: int) -> Tensor:
    """Room for (B, K, D, L), laid out as (K, B, L, D), the way batched matrix products read it."""
    batch, channels, length = x.shape
    return x.new_empty((paths, batch, length, channels)).permute(1, 0, 3, 2)


def _preactivation(x: Tensor, weight: Tensor, bias: Tensor | None, path: str) -> Tensor:
    wide = torch.promote_types(x.dtype, weight.dtype)
    p = torch.zeros_like(x, dtype=wide)
    if bias is not None:
        p += bias.to(wide).unsqueeze(-1)
    for tap, here, there in _taps(weight.shape[-1], x.shape[-1], path):
        p[..., here] += x[..., there] * weight[:, tap, None]
    return p


def _taps(width: int, length: int, path: str) -> list[tuple[int, slice, slice]]:
    """Each tap with the outputs that have it and the inputs they take."""
    taps = []
    for shift in range(min(width, length)):
        late, early = slice(shift, length), slice(0, length - shift)
        taps.append((width - 1 - shift, *((late, early) if path == ">" else (early, late))))
    return taps


def cleared(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, ..., L) with zeros beyond each sample's length."""
    if lengths is None:
        return x
    beyond = torch.arange(x.shape[-1], device=x.device) >= lengths.unsqueeze(-1)
    return x.masked_fill(beyond.view(x.shape[0], *[1] * (x.dim() - 2), x.shape[-1]), 0)
