"""From points to voxels and back.

A voxel holds the points with the same floor(xyz / size) and the mean of their features; a point
reads what its voxel got.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.sparse.grid import LIMIT, SparseGrid, packed, unpacked


@dataclass(frozen=True, eq=False)
class Voxels:
    """Occupied voxels of a batch of point clouds, sorted by sample, x, y, z.

    Args:
        coordinates: (V, 4) int64 rows [sample, x, y, z] in voxels, negative ones too.
        features: (V, C), means over the points.
        stride: Side of these voxels in finest ones: 1.
        point_to_voxel: Voxel of each point, (P,) int64.
        lengths: Voxels of each sample, (B,) int64.
    """

    coordinates: Tensor
    features: Tensor
    stride: int
    point_to_voxel: Tensor
    lengths: Tensor

    @cached_property
    def grid(self) -> SparseGrid:
        """Where they are, with the neighbour maps that whoever shares these voxels has found."""
        return SparseGrid(self.coordinates, self.stride)

    def to_points(self, x: Tensor) -> Tensor:
        """Rows of voxels (V, C) as rows of points (P, C)."""
        return x[self.point_to_voxel]


def voxelize(
    xyz: Tensor, features: Tensor, sample: Tensor, size: float, samples: int | None = None
) -> Voxels:
    """Puts points into voxels.

    Args:
        xyz: Positions (P, 3) in metres.
        features: (P, C).
        sample: Sample of each point, (P,) int64.
        size: Side of a voxel in metres.
        samples: How many samples there are; None counts up to the last one with a point.

    Returns:
        The voxels; a sample's voxels do not depend on the others.

    Raises:
        SuiteError: Shapes do not fit, or points are not finite or too far out.
    """
    if xyz.shape != (len(features), 3) or sample.shape != (len(features),) or not len(features):
        shapes = ", ".join(str(tuple(t.shape)) for t in (xyz, features, sample))
        raise SuiteError(
            expected="xyz (P, 3), features (P, C) and sample (P,) of at least one point",
            found=shapes,
            where="voxelize",
            cure="concatenate the points of all samples",
        )
    position = torch.floor(xyz.detach() / size)
    if not (far := position.abs().amax()) <= LIMIT:  # Not a number is never less.
        raise SuiteError(
            expected=f"finite points within {LIMIT * size:g} m of the origin",
            found=f"a coordinate of {float(far) * size:g} m",
            where="xyz",
            cure="check the unit of the points (metres) and the voxel size",
        )
    keys, point_to_voxel, counts = torch.unique(
        packed(torch.cat((sample.unsqueeze(1), position.long()), dim=1)),
        return_inverse=True,
        return_counts=True,
    )
    # Sorted by voxel, the sum has one order on every device.
    order = point_to_voxel.argsort(stable=True)
    means = torch.segment_reduce(features[order], "mean", lengths=counts, axis=0)
    coordinates = unpacked(keys)
    lengths = coordinates[:, 0].bincount(minlength=samples or 0)
    return Voxels(coordinates, means, 1, point_to_voxel, lengths)
