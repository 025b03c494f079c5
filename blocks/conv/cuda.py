"""The depthwise convolution by the CUDA kernels of causal-conv1d, where they are installed.

Source: Dao-AILab/causal-conv1d. Its raw bindings take another number of arguments in almost every
release, its public function does not: so that is called, and differentiated by torch, once the
extension itself has loaded. It knows one direction: the other is turned round by copies. The
functions are those of `blocks.conv.reference`.
"""

import importlib
from typing import Any

import torch
from torch import Tensor

from blocks.conv import reference
from blocks.scan.cuda import extension

EXTENSION = "causal_conv1d_cuda"
WIDTHS = (2, 3, 4)


def available(device: torch.device) -> tuple[bool, str]:
    """Whether the kernels serve a device, and why."""
    if device.type != "cuda":
        return False, f"causal-conv1d's kernels are for CUDA, not for {device.type}"
    module, why = extension(EXTENSION)
    if module is None:
        return False, why
    parent, reason = extension("causal_conv1d")
    return parent is not None and hasattr(parent, "causal_conv1d_fn"), why if parent else reason


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> Tensor:
    """See `blocks.conv.reference.forward`."""
    if _beyond(x, weight):
        return reference.forward(x, weight, bias, lengths, silu, paths)
    out = reference.new_output(x, len(paths))
    cleared = reference.cleared(x, lengths)
    for k, path in enumerate(paths):
        y = _convolve(cleared, weight[k], None if bias is None else bias[k], silu, path)
        out[:, k] = reference.cleared(y, lengths)
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
    """See `blocks.conv.reference.backward`."""
    if _beyond(x, weight):
        return reference.backward(grad, x, weight, bias, lengths, silu, paths)
    inputs = [reference.cleared(x, lengths), weight, *([] if bias is None else [bias])]
    inputs = [v.detach().requires_grad_() for v in inputs]
    with torch.enable_grad():
        own_bias = None if bias is None else inputs[2]
        ys = [
            _convolve(inputs[0], inputs[1][k], None if own_bias is None else own_bias[k], silu, p)
            for k, p in enumerate(paths)
        ]
        out = torch.stack(ys, 1)
    found = torch.autograd.grad(out, inputs, reference.cleared(grad, lengths).to(out.dtype))
    dx = torch.empty_like(x).copy_(reference.cleared(found[0], lengths))
    return dx, found[1], x.new_empty(0) if bias is None else found[2]


def _beyond(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels do not take these; plain torch does."""
    return weight.shape[-1] not in WIDTHS or torch.float64 in (x.dtype, weight.dtype)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, path: str) -> Tensor:
    function: Any = importlib.import_module("causal_conv1d").causal_conv1d_fn
    x = x.flip(-1) if path == "<" else x.contiguous()
    y: Tensor = function(x, weight, bias, activation="silu" if silu else None)
    return y.flip(-1) if path == "<" else y
