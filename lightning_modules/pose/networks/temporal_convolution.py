"""Multi-scale temporal convolution, as TaatiTeam/MotionAGFormer offers it instead of a graph.

Four branches of C/4 channels: two dilated convolutions over five frames, a maximum over three, and
nothing but a projection; each with batch normalisation. Their concatenation is added to the input.
"""

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError

_TAPS, _POOLED, _DILATIONS = 5, 3, (1, 2)


class MultiScaleTemporalConvolution(nn.Module):
    """Mixes the frames of each joint, (B, T, C) to (B, T, C).

    Args:
        dim: Width C, a multiple of 4.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 4:
            raise SuiteError(
                expected="a width that four branches can share",
                found=f"dim={dim}",
                where="MultiScaleTemporalConvolution",
                cure="choose dim as a multiple of 4",
            )
        width = dim // 4
        branches = [
            nn.Sequential(*_projection(dim, width), nn.ReLU(), _Dilated(width, dilation))
            for dilation in _DILATIONS
        ]
        pool = nn.MaxPool2d((_POOLED, 1), stride=1, padding=(_POOLED // 2, 0))
        branches.append(
            nn.Sequential(*_projection(dim, width), nn.ReLU(), pool, nn.BatchNorm2d(width))
        )
        branches.append(nn.Sequential(*_projection(dim, width)))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the frames of (B, T, C)."""
        x_BCT1 = x.mT.unsqueeze(-1)
        y = torch.cat([branch(x_BCT1) for branch in self.branches], 1)
        return x + y.squeeze(-1).mT


class _Dilated(nn.Module):
    """Five frames, `dilation` apart."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        padding = (_TAPS // 2 * dilation, 0)
        self.conv = nn.Conv2d(width, width, (_TAPS, 1), padding=padding, dilation=(dilation, 1))
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x))
        return out


def _projection(dim: int, width: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(dim, width, 1), nn.BatchNorm2d(width)
