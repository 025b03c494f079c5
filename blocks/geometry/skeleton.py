"""Skeletons as tables: names of joints, parents, sides; and their graphs.

H36M-17 is the order of Human3.6M in every repository since VideoPose3D. Beware of
TaatiTeam/MotionAGFormer's own table of names: it swaps left and right, which its numbers do not
notice (both sides are always flipped together).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints.

    Args:
        names: One per joint.
        parents: Index of each joint's parent; -1 at the root.
        left: Joints of the left side, in the order of `right`.
        right: Joints of the right side.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def root(self) -> int:
        """The joint without a parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) of every joint that has a parent."""
        return tuple((p, child) for child, p in enumerate(self.parents) if p >= 0)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each joint the one on the other side; itself in the middle."""
        order = list(range(len(self.names)))
        for a, b in zip(self.left, self.right, strict=True):
            order[a], order[b] = b, a
        return tuple(order)

    def adjacency(self) -> Tensor:
        """(J, J) of 0 and 1: joints that share a bone, symmetric, no joint with itself."""
        A = torch.zeros(len(self.names), len(self.names))
        for a, b in self.bones:
            A[a, b] = A[b, a] = 1
        return A


H36M = Skeleton(
    names=(
        "pelvis", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
        "spine", "thorax", "neck", "head", "left shoulder", "left elbow", "left wrist",
        "right shoulder", "right elbow", "right wrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
)  # fmt: skip

MPI_INF_3DHP = Skeleton(
    names=(
        "head top", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder",
        "left elbow", "left wrist", "right hip", "right knee", "right ankle", "left hip",
        "left knee", "left ankle", "pelvis", "spine", "head",
    ),
    parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
    left=(5, 6, 7, 11, 12, 13),
    right=(2, 3, 4, 8, 9, 10),
)  # fmt: skip

# Joints of H36M-17 limb after limb, for scans over the body.
LIMB_ORDER = (0, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16)

# MotionAGFormer's published weights were trained with three directed edges missing.
_MISSING_UPSTREAM = ((0, 4), (8, 11), (8, 14))


def agformer_adjacency() -> Tensor:
    """(17, 17): the graph of TaatiTeam/MotionAGFormer's published weights, with its gaps."""
    A = H36M.adjacency()
    for row, column in _MISSING_UPSTREAM:
        A[row, column] = 0
    return A
