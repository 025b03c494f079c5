"""Depthwise submanifold convolution of sparse voxels: a weight per offset and channel.

    y[o] = sum over k of x[o + offset_k] * w_k

Kernel (K^3, C), x varying fastest as in `blocks.sparse.convolution`.

Axes: V rows, K offsets, C channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from blocks.operators import define_operator, differentiable
from blocks.sparse.convolution import check_kernel, slices, wide_type
from blocks.sparse.grid import SparseGrid


class DepthwiseSparseConv3d(nn.Module):
    """Depthwise convolution of voxels (V, C) that keeps them.

    Args:
        channels: Channels C.
        kernel_size: Odd side of the kernel in voxels.
        bias: Whether a bias is added.
    """

    def __init__(self, channels: int, kernel_size: int = 3, bias: bool = True) -> None:
        super().__init__()
        check_kernel(kernel_size, 1)
        self.kernel_size = kernel_size
        self.kernel = nn.Parameter(torch.empty(kernel_size**3, channels))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        bound = 1 / math.sqrt(kernel_size**3)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, grid: SparseGrid) -> Tensor:
        """Convolves (V, C) on `grid`; computes in the type of x, autocast or not."""
        m = grid.neighbours(self.kernel_size)
        kernel = self.kernel.to(x.dtype)
        y: Tensor = _depthwise(x, kernel, m.inputs, m.outputs, m.counts, m.centre)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def extra_repr(self) -> str:
        """Channels and kernel."""
        return f"{self.kernel.shape[1]}, kernel_size={self.kernel_size}"


def _forward(
    x: Tensor, weight: Tensor, inputs: Tensor, outputs: Tensor, counts: Sequence[int], centre: int
) -> Tensor:
    wide = wide_type(x)
    y = x.to(wide) * weight[centre]
    for k, pairs in slices(counts):
        part = x.index_select(0, inputs[pairs]).to(wide)
        y.index_add_(0, outputs[pairs], part.mul_(weight[k]))
    return y.to(x.dtype)


def _fake_forward(
    x: Tensor, weight: Tensor, inputs: Tensor, outputs: Tensor, counts: Sequence[int], centre: int
) -> Tensor:
    return torch.empty_like(x)


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    counts: Sequence[int],
    centre: int,
) -> tuple[Tensor, Tensor]:
    wide = wide_type(x)
    dx = grad.to(wide) * weight[centre]
    dweight = torch.zeros_like(weight, dtype=wide)
    dweight[centre] = (x.to(wide) * grad).sum(0)
    for k, pairs in slices(counts):
        part = grad.index_select(0, outputs[pairs]).to(wide)
        dweight[k] = (x.index_select(0, inputs[pairs]) * part).sum(0)
        dx.index_add_(0, inputs[pairs], part.mul_(weight[k]))
    return dx.to(x.dtype), dweight.to(weight.dtype)


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    counts: Sequence[int],
    centre: int,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


_depthwise = define_operator("depthwise_sparse_conv", _forward, _fake_forward)
_depthwise_backward = define_operator("depthwise_sparse_conv_backward", _backward, _fake_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.counts, ctx.centre = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    dx, dweight = _depthwise_backward(grad.contiguous(), *ctx.saved_tensors, ctx.counts, ctx.centre)
    return dx, dweight, None, None, None, None


differentiable(
    "depthwise_sparse_conv", _differentiate, _save, "write the penalty without a second derivative"
)


@register_flop_formula(torch.ops.bimamba.depthwise_sparse_conv)
def depthwise_flops(
    x_shape: Any,
    weight_shape: Any,
    inputs_shape: Any,
    outputs_shape: Any,
    counts: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """Floating-point operations: two per pair of voxels and channel.

    Args:
        x_shape: (V, C).
        weight_shape: Not looked at.
        inputs_shape: Not looked at.
        outputs_shape: Not looked at.
        counts: Pairs of each weight.
    """
    return int(2 * (sum(counts) + x_shape[0]) * x_shape[1])
