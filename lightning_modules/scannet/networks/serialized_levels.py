"""The voxels of one stride as sequences along space-filling curves, sample by sample.

Curves start at each sample's own corner and always have the same depth: neither the place of a room
nor the others in its batch change a sample's sequence.

Axes: B samples, V voxels, L steps of the longest sample, C channels.
"""

from functools import cached_property

import torch
from torch import Tensor

from blocks.serialization import MAX_DEPTH, Order, serialize
from blocks.sparse import SparseGrid, Voxels


class SerializedLevel:
    """A grid of voxels with the order of each curve, found once.

    Args:
        grid: The voxels, no coordinate negative.
        samples: Number B of samples.
    """

    def __init__(self, grid: SparseGrid, samples: int) -> None:
        self.grid = grid
        self.sample = grid.coordinates[:, 0]
        self.lengths = self.sample.bincount(minlength=samples)
        self._slots: dict[Order, Tensor] = {}

    @classmethod
    def finest(cls, voxels: Voxels) -> "SerializedLevel":
        """The voxels of a batch, moved so that each sample begins at 0."""
        sample, xyz = voxels.coordinates[:, 0], voxels.coordinates[:, 1:]
        corner = xyz.new_zeros(len(voxels.lengths), 3)
        rows = sample.unsqueeze(1).expand(-1, 3)
        corner = corner.scatter_reduce(0, rows, xyz, "amin", include_self=False)
        moved = torch.cat((sample.unsqueeze(1), xyz - corner[sample]), dim=1)
        return cls(SparseGrid(moved, voxels.stride), len(voxels.lengths))

    @cached_property
    def coarser(self) -> "SerializedLevel":
        """The level of twice the stride."""
        return SerializedLevel(self.grid.coarser, len(self.lengths))

    def to_sequences(self, x: Tensor, order: Order) -> Tensor:
        """Voxels (V, C) as sequences (B, L, C) along a curve, zeros beyond `lengths`."""
        batch, channels = len(self.lengths), x.shape[1]
        padded = x.new_zeros(batch * self._longest, channels)
        padded = padded.index_copy(0, self._slots_of(order), x)
        return padded.view(batch, self._longest, channels)

    def to_voxels(self, x: Tensor, order: Order) -> Tensor:
        """Sequences (B, L, C) back as voxels (V, C)."""
        return x.flatten(0, 1).index_select(0, self._slots_of(order))

    @cached_property
    def _longest(self) -> int:
        return int(self.lengths.max())

    def _slots_of(self, order: Order) -> Tensor:
        """Place of each voxel in the flattened sequences, (V,)."""
        if order not in self._slots:
            stride = self.grid.stride
            cells = self.grid.coordinates[:, 1:] // stride
            depth = MAX_DEPTH + 1 - stride.bit_length()
            along = serialize(cells, self.sample, depth, order).argsort()
            # Samples stay together: both in the voxels' own order and along the curve.
            starts = self.lengths.cumsum(0) - self.lengths
            steps = torch.arange(len(along), device=along.device) - starts[self.sample]
            slots = torch.empty_like(along)
            slots[along] = self.sample * self._longest + steps
            self._slots[order] = slots
        return self._slots[order]
