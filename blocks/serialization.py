"""Space-filling curves: voxels into one sequence in which neighbours stay close.

Follows Pointcept/Pointcept (Point Transformer V3, arXiv 2312.10035). `z` interleaves the bits of
the coordinates with x most significant; `hilbert` is Skilling's transform (AIP Conf. Proc. 707,
2004), which never jumps; the `trans` forms swap x and y first.

A code without its lowest 3 bits is the code of the cell twice as large.
"""

from typing import Literal

import torch
from torch import Tensor

from blocks.errors import SuiteError

Order = Literal["z", "z-trans", "hilbert", "hilbert-trans"]
ORDERS: tuple[Order, ...] = ("z", "z-trans", "hilbert", "hilbert-trans")

MAX_DEPTH = 16
_SAMPLES = 1 << 63 - 3 * MAX_DEPTH
# Shifts, and which bits are right after each.
_SPREADS = ((16, 0xFF0000FF), (8, 0xF00F00F00F), (4, 0xC30C30C30C3), (2, 0x249249249249))


def serialize(grid: Tensor, sample: Tensor, depth: int, order: Order) -> Tensor:
    """Places of voxels along a curve, sample after sample.

    Args:
        grid: Coordinates (V, 3), integers in 0..2^depth - 1.
        sample: Sample of each voxel, (V,).
        depth: Bits of a coordinate, 1 to 16. The Hilbert curve differs between depths: what must
            not depend on the extent of a batch uses the same one always.
        order: Which curve.

    Returns:
        Codes (V,) int64, different for different voxels; sort by them.

    Raises:
        SuiteError: A coordinate does not fit, or order or depth are unknown.
    """
    _check(grid, sample, depth, order)
    x, y, z = grid.long().unbind(1)
    axes = [y, x, z] if order.endswith("-trans") else [x, y, z]
    if order.startswith("hilbert"):
        axes = _hilbert_axes(axes, depth)
    code = (_spread(axes[0]) << 2) | (_spread(axes[1]) << 1) | _spread(axes[2])
    return (sample.long() << 3 * depth) | code


def _spread(x: Tensor) -> Tensor:
    """Bit i to place 3 i, by halving the gaps: 16 bits, 8 and 8, ..., one and one."""
    for shift, mask in _SPREADS:
        x = (x | x << shift) & mask
    return x


def _hilbert_axes(axes: list[Tensor], depth: int) -> list[Tensor]:
    """Coordinates to what interleaves to the Hilbert index (Skilling's AxestoTranspose)."""
    first, *others = axes
    for bit in reversed(range(1, depth)):
        low = (1 << bit) - 1
        first = first ^ _where_set(first, bit, low)
        for i, other in enumerate(others):
            # Where the bit is set the lower bits of the first axis are mirrored; else they trade
            # places with the other axis.
            swap = (first ^ other) & low & ~_where_set(other, bit, low)
            first = first ^ swap ^ _where_set(other, bit, low)
            others[i] = other ^ swap
    # Gray code.
    second = others[0] ^ first
    third = others[1] ^ second
    parity = torch.zeros_like(third)
    for bit in range(1, depth):
        parity = parity ^ _where_set(third, bit, (1 << bit) - 1)
    return [first ^ parity, second ^ parity, third ^ parity]


def _where_set(x: Tensor, bit: int, mask: int) -> Tensor:
    """The mask where a bit is set, else 0."""
    return -(x >> bit & 1) & mask


def _check(grid: Tensor, sample: Tensor, depth: int, order: str) -> None:
    if order not in ORDERS or not 1 <= depth <= MAX_DEPTH:
        raise SuiteError(
            expected=f"an order among {', '.join(ORDERS)} and a depth of 1 to {MAX_DEPTH}",
            found=f"order {order!r}, depth {depth}",
            where="serialize",
            cure="see blocks.serialization.ORDERS",
        )
    if not len(grid):
        return
    least, most, last = int(grid.min()), int(grid.max()), int(sample.max())
    if least < 0 or most >= 1 << depth or last >= _SAMPLES:
        raise SuiteError(
            expected=f"coordinates in 0..{(1 << depth) - 1}, fewer than {_SAMPLES} samples",
            found=f"coordinates in {least}..{most}, sample {last}",
            where=f"serialize(depth={depth})",
            cure="subtract each sample's smallest coordinates, or use larger voxels",
        )
