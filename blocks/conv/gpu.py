"""The depthwise convolution on a GPU: both directions, bias and silu in one pass over the input.

The functions are those of `blocks.conv.reference`; the kernels are in `blocks.conv.gpu_kernels`.
Streams are read where they lie; best is a layout whose channels are neighbours.
"""

from typing import Any

import torch
from torch import Tensor

from blocks.conv.reference import new_output
from blocks.scan.gpu import available

__all__ = ["available", "backward", "forward"]

# Places and channels of a tile, and the warps that share it.
TILE, BLOCK, _WARPS = 32, 64, 4


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    paths: str,
) -> Tensor:
    """See `blocks.conv.reference.forward`."""
    call = _Call(x, weight, bias, lengths, paths)
    out = new_output(x, len(paths))
    call.start(
        "outputs", x, *x.stride(), call.weight, call.bias, lengths, out, *out.stride(),
        HAS_BIAS=bias is not None, SILU=silu,
    )  # fmt: skip
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
    call = _Call(x, weight, bias, lengths, paths)
    g = new_output(grad[:, 0], len(paths))
    dx = torch.empty_like(x)
    make = torch.empty if call.programs else torch.zeros
    options: dict[str, Any] = {"dtype": call.real, "device": x.device}
    parts = (len(x), call.tiles, len(paths))
    dweight = make((*parts, weight.shape[2], weight.shape[1]), **options)
    dbias = make((*parts, weight.shape[1]), **options)
    call.start(
        "gradients", x, *x.stride(), call.weight, call.bias, lengths, grad, *grad.stride(),
        g, *g.stride(), dweight, dbias, HAS_BIAS=bias is not None, SILU=silu,
    )  # fmt: skip
    call.start("spread", g, *g.stride(), call.weight, lengths, dx, *dx.stride())
    return (
        dx,
        dweight.sum((0, 1)).mT.to(weight.dtype).contiguous(),
        dbias.new_empty(0) if bias is None else dbias.sum((0, 1)).to(bias.dtype),
    )


class _Call:
    """One convolution in the form the kernels take; arguments as for `forward`."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lengths: Tensor | None,
        paths: str,
    ) -> None:
        self.batch, self.channels, self.length = x.shape
        self.real = torch.float64 if torch.float64 in (x.dtype, weight.dtype) else torch.float32
        self.device, self.ragged = x.device, lengths is not None
        self.weight = weight.mT.contiguous()
        self.bias = None if bias is None else bias.contiguous()
        self.width, self.count = weight.shape[2], len(paths)
        self.pattern = sum(1 << k for k, path in enumerate(paths) if path == "<")
        self.tiles, self.blocks = -(-self.length // TILE), -(-self.channels // BLOCK)
        self.programs = self.batch * self.tiles * self.blocks

    def start(self, name: str, *arguments: Any, **options: bool) -> None:
        """Runs a kernel over all tiles."""
        if not self.programs:
            return
        import triton.language as tl

        from blocks.conv import gpu_kernels

        kernel = getattr(gpu_kernels, name)[(self.programs,)]
        fixed: dict[str, Any] = {
            "K": self.count, "PATTERN": self.pattern, "RAGGED": self.ragged, "W": self.width,
            "REAL": tl.float64 if self.real == torch.float64 else tl.float32,
            "T": TILE, "BLOCK": BLOCK,
        }  # fmt: skip
        sizes = (self.channels, self.length, self.tiles, self.blocks)
        if self.device.type == "cpu":
            kernel(*arguments, *sizes, **fixed, **options)
            return
        with torch.cuda.device(self.device):
            kernel(*arguments, *sizes, **fixed, **options, num_warps=_WARPS)
