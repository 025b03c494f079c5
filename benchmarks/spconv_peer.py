"""A submanifold layer of traveller59/spconv with our weights.

spconv is no dependency: it is measured where somebody has installed it.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from blocks.sparse import SparseConv3d, SparseGrid
from blocks.sparse.layout import to_spconv


class SpconvLayer:
    """spconv's layer on one grid, its neighbours found at the first call as ours are.

    Args:
        conv: Our layer of stride 1, whose kernel it gets.
        grid: Where the voxels are.
    """

    def __init__(self, conv: SparseConv3d, grid: SparseGrid) -> None:
        spconv = import_module("spconv.pytorch")
        options: dict[str, Any] = {}
        if not grid.keys.is_cuda:
            # Else its backward pass asks a torch without CUDA for a stream.
            spconv.ops.get_current_stream = lambda: 0
            options = {"algo": spconv.ConvAlgo.Native}
        inputs, outputs = conv.kernel.shape[-2:]
        self._layer = spconv.SubMConv3d(
            inputs, outputs, conv.kernel_size, bias=False, indice_key="peer", **options
        ).to(conv.kernel.device, conv.kernel.dtype)
        self.weight: Tensor = self._layer.weight
        with torch.no_grad():
            self.weight.copy_(to_spconv(conv.kernel))
        self._ours = conv, grid
        indices = grid.coordinates.clone()
        indices[:, 1:] = indices[:, 1:] // grid.stride
        indices[:, 1:] -= indices[:, 1:].amin(0)
        shape = (indices[:, 1:].amax(0) + 1).tolist()
        samples = int(indices[:, 0].amax()) + 1
        features = conv.kernel.new_zeros(len(grid), inputs)
        self._voxels = spconv.SparseConvTensor(features, indices.int(), shape, samples)
        self._layer(self._voxels)

    def __call__(self, x: Tensor) -> Tensor:
        """Convolves (V, I)."""
        y: Tensor = self._layer(self._voxels.replace_feature(x)).features
        return y

    def check(self, x: Tensor) -> None:
        """Refuses a peer that does not compute what we do, forward and backward.

        Raises:
            AssertionError: Values or gradients differ.
        """
        conv, grid = self._ours
        mine, theirs = conv(x, grid), self(x)
        loose = 1e-3 if x.dtype == torch.float32 else 0.1
        torch.testing.assert_close(theirs, mine, atol=loose, rtol=loose)
        grad = torch.ones_like(mine)
        (a,), (b,) = (torch.autograd.grad(y, [x], grad) for y in (mine, theirs))
        torch.testing.assert_close(b, a, atol=loose, rtol=loose)
