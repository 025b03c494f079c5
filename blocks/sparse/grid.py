"""Where voxels are: sorted keys, coarser grids and neighbour maps, each found once.

A key packs (sample, x, y, z) into one int64. Packing is linear, so the neighbour at an offset has a
key at a constant distance, and the cell around a voxel is its key without the lowest bits.

Coordinates are in units of the finest voxel at every stride, as in NVIDIA/MinkowskiEngine.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from blocks.errors import SuiteError

# Three coordinates and the sample; the sign bit stays free.
_BITS, _SAMPLE_BITS = 17, 12
_X, _Y, _Z = 1 << 2 * _BITS, 1 << _BITS, 1
_ORIGIN = 1 << _BITS - 1
# Offsets must not carry from one coordinate into the next.
LIMIT = _ORIGIN - 256
_NO_KEY = -1

# Rows of the input and of the output that one kernel weight connects.
_Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class KernelMap:
    """Which rows the weights of a kernel connect, weight after weight.

    Within a weight no row occurs twice, on either side: sums need no atomics and have one order.

    Args:
        inputs: Rows of the input, (pairs,).
        outputs: Rows of the output, (pairs,).
        counts: Pairs of each weight.
        centre: The weight that connects every row with itself, whose pairs are left out; -1 none.
        rows: Rows of the output.
    """

    inputs: Tensor
    outputs: Tensor
    counts: tuple[int, ...]
    centre: int
    rows: int

    def transposed(self, rows: int) -> "KernelMap":
        """The same pairs from output to input.

        Args:
            rows: Rows of the input.
        """
        return KernelMap(self.outputs, self.inputs, self.counts, self.centre, rows)


class SparseGrid:
    """Occupied voxels of a batch at one stride.

    Args:
        coordinates: (V, 4) int64 rows [sample, x, y, z], sorted, none twice; x, y, z are multiples
            of the stride and may be negative.
        stride: Side of a voxel in finest voxels, a power of two.

    Raises:
        SuiteError: Coordinates are out of range, not sorted, or no multiples of the stride.
    """

    def __init__(self, coordinates: Tensor, stride: int = 1) -> None:
        self.coordinates = coordinates
        self.stride = stride
        self.keys = packed(coordinates)
        if (self.keys[1:] <= self.keys[:-1]).any() or (coordinates[:, 1:] % stride).any():
            raise SuiteError(
                expected=f"sorted, distinct voxels at multiples of {stride}",
                found=f"{len(coordinates)} rows that are not",
                where="SparseGrid(coordinates=...)",
                cure="make them with blocks.sparse.voxelize",
            )
        self._maps: dict[int, KernelMap] = {}
        self._poolings: dict[int, KernelMap] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def coarser(self) -> "SparseGrid":
        """The grid of twice the stride that covers this one; always the same object."""
        return self._coarsened[0]

    @property
    def parents(self) -> Tensor:
        """Row in `coarser` of the voxel that holds each voxel of this grid, (V,)."""
        return self._coarsened[1]

    @cached_property
    def _coarsened(self) -> tuple["SparseGrid", Tensor]:
        # The origin is a multiple of every stride: clearing bits rounds down, below zero too.
        inside = (2 * self.stride - 1) * (_X + _Y + _Z)
        keys, parents = torch.unique(self.keys & ~inside, return_inverse=True)
        return SparseGrid(unpacked(keys), 2 * self.stride), parents

    def neighbours(self, kernel_size: int) -> KernelMap:
        """Map of a submanifold convolution: output o reads input o + offset.

        Args:
            kernel_size: Odd side of the kernel, in voxels of this grid.
        """
        if kernel_size not in self._maps:
            radius = kernel_size // 2
            heights = range(-radius, radius + 1)
            pairs: dict[tuple[int, int, int], _Pairs] = {}
            for x, y in product(heights, heights):
                if (x, y) < (0, 0):
                    continue
                column = range(1, radius + 1) if x == y == 0 else heights
                for z, (found, own) in self._column(self.keys, (x, y), column):
                    pairs[x, y, z] = found, own
                    # Half of the search gives the other half: who finds is found.
                    pairs[-x, -y, -z] = own, found
            centre = kernel_size**3 // 2
            self._maps[kernel_size] = self._ordered(pairs, heights, centre, len(self))
        return self._maps[kernel_size]

    def pooling(self, kernel_size: int) -> KernelMap:
        """Map of a convolution of stride 2, from this grid to `coarser`.

        Args:
            kernel_size: Side of the kernel, in voxels of this grid; centred on the output's corner
                where it is odd.
        """
        if kernel_size not in self._poolings:
            radius = kernel_size // 2 if kernel_size % 2 else 0
            heights = range(-radius, kernel_size - radius)
            pairs = {
                (x, y, z): found
                for x, y in product(heights, heights)
                for z, found in self._column(self.coarser.keys, (x, y), heights)
            }
            self._poolings[kernel_size] = self._ordered(pairs, heights, -1, len(self.coarser))
        return self._poolings[kernel_size]

    def _column(
        self, queries: Tensor, xy: tuple[int, int], heights: range
    ) -> Iterable[tuple[int, _Pairs]]:
        """For every z of a column of offsets: rows of this grid, and of the queries they serve."""
        x, y = xy
        keys = torch.cat((self.keys, self.keys.new_tensor([_NO_KEY])))
        target = queries + (x * _X + y * _Y + heights.start * _Z) * self.stride
        position = torch.searchsorted(self.keys, target)
        for z in heights:
            matches = keys[position] == target
            rows = matches.nonzero().squeeze(1)
            yield z, (position[rows], rows)
            # z varies fastest in a key and nothing lies between two heights: what was found is
            # stepped over, what was not is where the next would stand.
            position = position + matches
            target = target + _Z * self.stride

    def _ordered(
        self, pairs: dict[tuple[int, int, int], _Pairs], heights: range, centre: int, rows: int
    ) -> KernelMap:
        """Pairs in the order of MinkowskiEngine's kernels, in which x varies fastest."""
        nothing = self.keys.new_empty(0)
        found = [pairs.get((x, y, z), (nothing, nothing))
                 for z, y, x in product(heights, heights, heights)]  # fmt: skip
        inputs, outputs = (torch.cat(side) for side in zip(*found, strict=True))
        return KernelMap(inputs, outputs, tuple(len(i) for i, _ in found), centre, rows)


def packed(coordinates: Tensor) -> Tensor:
    """Keys (V,) of rows [sample, x, y, z]; they sort like the rows.

    Raises:
        SuiteError: A coordinate or sample is out of range.
    """
    sample, xyz = coordinates[:, 0], coordinates[:, 1:]
    far, last = xyz.abs().amax() if len(xyz) else 0, sample.amax() if len(xyz) else 0
    if far > LIMIT or last >= 1 << _SAMPLE_BITS:
        raise SuiteError(
            expected=f"voxels within {LIMIT} of the origin, at most {1 << _SAMPLE_BITS} samples",
            found=f"a coordinate of {int(far)}, a sample {int(last)}",
            where="coordinates of sparse voxels",
            cure="check the unit of the points (metres) and the voxel size",
        )
    x, y, z = (xyz + _ORIGIN).unbind(1)
    return (sample << 3 * _BITS) + x * _X + y * _Y + z * _Z


def unpacked(keys: Tensor) -> Tensor:
    """Rows [sample, x, y, z] of keys."""
    parts = [(keys >> _BITS * i) & ((1 << _BITS) - 1) for i in (2, 1, 0)]
    return torch.stack((keys >> 3 * _BITS, *(part - _ORIGIN for part in parts)), dim=1)
