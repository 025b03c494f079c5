"""Submanifold, strided and transposed convolution of sparse voxels: gather, multiply, scatter.

    y[o] = sum over k of x[o + offset_k] W_k      only over voxels that exist

Weights, offsets and start are those of NVIDIA/MinkowskiEngine 0.5: `kernel` (K^3, in, out) with x
varying fastest, (in, out) for K = 1, and its checkpoints load as they are. One matrix product per
offset: within an offset no output row occurs twice, so the result has one order of summation.

Axes: V rows, K offsets, I and O channels.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from blocks.errors import SuiteError
from blocks.operators import define_operator, differentiable
from blocks.sparse.grid import KernelMap, SparseGrid


class SparseConv3d(nn.Module):
    """Convolution of voxels (V, I) to (V', O).

    Args:
        in_channels: Channels I of the input.
        out_channels: Channels O of the output.
        kernel_size: Side of the kernel in voxels of the finer grid; odd where the stride is 1.
        stride: 1 keeps the voxels (submanifold), 2 goes to the coarser grid.
        transposed: Comes back from the coarser grid instead, with stride 2.
        bias: Whether a bias is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        transposed: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_kernel(kernel_size, stride)
        if transposed and stride == 1:
            raise SuiteError(
                expected="stride 2 for a transposed convolution",
                found="stride 1",
                where="SparseConv3d(transposed=True, stride=...)",
                cure="use a convolution that is not transposed to stay on a grid",
            )
        self.kernel_size, self.stride, self.transposed = kernel_size, stride, transposed
        volume = kernel_size**3
        shape = (volume, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape[1:] if volume == 1 else shape))
        self.bias = nn.Parameter(torch.empty(1, out_channels)) if bias else None
        bound = 1 / math.sqrt(volume * (out_channels if transposed else in_channels))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, grid: SparseGrid) -> Tensor:
        """Convolves.

        Args:
            x: (V, I), on `grid`; on `grid.coarser` where transposed.
            grid: The finer of the two grids.

        Returns:
            (V', O) on `grid`; on `grid.coarser` where the stride is 2.
        """
        if self.kernel.dim() == 2 and self.stride == 1:
            y = x @ self.kernel
        else:
            y = sparse_conv(x, self.kernel, self._map(grid))
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Channels and kernel."""
        arrow = "coarser to finer" if self.transposed else f"stride {self.stride}"
        i, o = self.kernel.shape[-2:]
        return f"{i}, {o}, kernel_size={self.kernel_size}, {arrow}"

    def _map(self, grid: SparseGrid) -> KernelMap:
        if self.stride == 1:
            return grid.neighbours(self.kernel_size)
        pooling = grid.pooling(self.kernel_size)
        return pooling.transposed(len(grid)) if self.transposed else pooling


def sparse_conv(x: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """The convolution as a function.

    Inside an autocast region the products are computed in its type and added up in float32.

    Args:
        x: (V, I).
        kernel: (K^3, I, O), or (I, O) for one weight.
        kernel_map: Which rows each weight connects.

    Returns:
        (rows of the map, O) in the type of the products.
    """
    kernel = kernel if kernel.dim() == 3 else kernel.unsqueeze(0)
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        low = torch.get_autocast_dtype(device)
        x, kernel = x.to(low), kernel.to(low)
    m = kernel_map
    y: Tensor = _sparse_conv(x, kernel, m.inputs, m.outputs, m.counts, m.centre, m.rows)
    return y


def check_kernel(kernel_size: int, stride: int) -> None:
    """Refuses kernels that have no meaning on sparse voxels.

    Raises:
        SuiteError: An even kernel that has no centre to stay at, or a stride other than 1 and 2.
    """
    if kernel_size < 1 or stride not in (1, 2) or (stride == 1 and kernel_size % 2 == 0):
        raise SuiteError(
            expected="an odd kernel with stride 1, or any kernel with stride 2",
            found=f"kernel_size {kernel_size}, stride {stride}",
            where="sparse convolution",
            cure="use kernel_size 3 with stride 1, kernel_size 2 with stride 2",
        )


def slices(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Each weight that connects anything, and where its pairs lie."""
    start = 0
    for k, count in enumerate(counts):
        if count:
            yield k, slice(start, start + count)
        start += count


def wide_type(x: Tensor) -> torch.dtype:
    """What sums over weights are kept in."""
    return torch.promote_types(x.dtype, torch.float32)


def _forward(
    x: Tensor,
    weight: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    counts: Sequence[int],
    centre: int,
    rows: int,
) -> Tensor:
    wide = wide_type(x)
    with torch.autocast(x.device.type, enabled=False):
        if centre >= 0:
            y = (x @ weight[centre]).to(wide)
        else:
            y = x.new_zeros((rows, weight.shape[2]), dtype=wide)
        for k, pairs in slices(counts):
            part = x.index_select(0, inputs[pairs]) @ weight[k]
            y.index_add_(0, outputs[pairs], part.to(wide))
    return y.to(x.dtype)


def _fake_forward(
    x: Tensor,
    weight: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    counts: Sequence[int],
    centre: int,
    rows: int,
) -> Tensor:
    return x.new_empty((rows, weight.shape[2]))


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    counts: Sequence[int],
    centre: int,
    needs_input: bool,
) -> tuple[Tensor, Tensor]:
    wide = wide_type(x)
    dweight = torch.zeros_like(weight)
    with torch.autocast(x.device.type, enabled=False):
        if centre >= 0:
            dweight[centre] = x.mT @ grad
        if not needs_input:  # The colours of the first layer.
            dx = x.new_empty(0)
        elif centre >= 0:
            dx = (grad @ weight[centre].mT).to(wide)
        else:
            dx = torch.zeros_like(x, dtype=wide)
        for k, pairs in slices(counts):
            part = grad.index_select(0, outputs[pairs])
            dweight[k] = x.index_select(0, inputs[pairs]).mT @ part
            if needs_input:
                dx.index_add_(0, inputs[pairs], (part @ weight[k].mT).to(wide))
    return dx.to(x.dtype), dweight


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    counts: Sequence[int],
    centre: int,
    needs_input: bool,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x) if needs_input else x.new_empty(0), torch.empty_like(weight)


_sparse_conv = define_operator("sparse_conv", _forward, _fake_forward)
_sparse_conv_backward = define_operator("sparse_conv_backward", _backward, _fake_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.counts, ctx.centre, _ = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs_input, needs_weight, *_ = ctx.needs_input_grad
    dx, dweight = _sparse_conv_backward(
        grad.contiguous(), *ctx.saved_tensors, ctx.counts, ctx.centre, needs_input
    )
    nothing = (None,) * 5
    return dx if needs_input else None, dweight if needs_weight else None, *nothing


differentiable(
    "sparse_conv", _differentiate, _save, "write the penalty without a second derivative"
)


@register_flop_formula(torch.ops.bimamba.sparse_conv)
def sparse_conv_flops(
    x_shape: Any,
    weight_shape: Any,
    inputs_shape: Any,
    outputs_shape: Any,
    counts: Sequence[int],
    centre: int,
    rows: int,
    **_: Any,
) -> int:
    """Floating-point operations: two per pair of voxels, input and output channel.

    Args:
        x_shape: Not looked at.
        weight_shape: (K^3, I, O).
        inputs_shape: Not looked at.
        outputs_shape: Not looked at.
        counts: Pairs of each weight.
        centre: Weight with a pair for every row; -1 none.
        rows: Rows of the output.
    """
    pairs = sum(counts) + (rows if centre >= 0 else 0)
    return int(2 * pairs * weight_shape[1] * weight_shape[2])
