"""Kernels of traveller59/spconv and of NVIDIA/MinkowskiEngine into each other.

MinkowskiEngine   (K^3, I, O)           x varies fastest; (I, O) for K = 1
spconv 2          (O, Kx, Ky, Kz, I)    for voxels indexed (sample, x, y, z)
spconv 1          (Kx, Ky, Kz, I, O)    some files of filaPro/oneformer3d have it still
"""

import torch
from torch import Tensor

from blocks.errors import SuiteError


def to_spconv(kernel: Tensor) -> Tensor:
    """A MinkowskiEngine kernel as a weight of spconv 2.

    Args:
        kernel: (K^3, I, O) or (I, O).
    """
    kernel = kernel if kernel.dim() == 3 else kernel.unsqueeze(0)
    side = round(len(kernel) ** (1 / 3))
    zyx = kernel.reshape(side, side, side, *kernel.shape[1:])
    return zyx.permute(4, 2, 1, 0, 3).contiguous()


def from_spconv(weight: Tensor, shape: torch.Size) -> Tensor:
    """A weight of spconv, 1 or 2, as a MinkowskiEngine kernel.

    Args:
        weight: (O, Kx, Ky, Kz, I) or (Kx, Ky, Kz, I, O).
        shape: Shape the kernel must get, which tells the two apart.

    Raises:
        SuiteError: It is neither.
    """
    *volume, inputs, outputs = shape
    side = round((volume or [1])[0] ** (1 / 3))
    cube = (side, side, side)
    if weight.shape == (outputs, *cube, inputs):
        xyz = weight.permute(1, 2, 3, 4, 0)
    elif weight.shape == (*cube, inputs, outputs):
        xyz = weight
    else:
        raise SuiteError(
            expected=f"a spconv weight {(outputs, *cube, inputs)} or {(*cube, inputs, outputs)}",
            found=f"{tuple(weight.shape)}",
            where="kernel of a sparse convolution",
            cure="build the network the weights were trained with",
        )
    return xyz.permute(2, 1, 0, 3, 4).reshape(shape).contiguous()
