"""Convolution on the few voxels of a space that are occupied, in plain torch.

Features are a tensor (V, C); where its rows lie is a `SparseGrid` that travels beside it.
"""

from blocks.sparse.convolution import SparseConv3d
from blocks.sparse.depthwise import DepthwiseSparseConv3d
from blocks.sparse.grid import KernelMap, SparseGrid
from blocks.sparse.voxels import Voxels, voxelize

__all__ = [
    "DepthwiseSparseConv3d",
    "KernelMap",
    "SparseConv3d",
    "SparseGrid",
    "Voxels",
    "voxelize",
]
