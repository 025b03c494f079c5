"""Res16UNet34C: a sparse residual U-Net over 2 cm voxels, the backbone of Mask3D and ESAM.

Follows `mink_unet.py` of xuxw98/ESAM (chrischoy/SpatioTemporalSegmentation, arXiv 1904.08755) with
its state-dict keys. Voxels (V, 3) to features (V, 96):

    p1 = stem(x)
    b_i = block_i(down_i(b_{i-1}))                         i = 1..4, strides 2, 4, 8, 16
    y_i = block_i(cat(up_i(y_{i-1}), skip))                i = 5..8, strides 8, 4, 2, 1
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from blocks.sparse import SparseConv3d, SparseGrid, Voxels
from blocks.upstream import renamed
from lightning_modules.scannet.networks.backbone_weights import backbone_state

_LEVELS = 4


class Res16UNet34C(Recorded, nn.Module):
    """The backbone; smaller widths and depths give its narrow forms.

    Args:
        in_channels: Channels of a voxel: its colour.
        stem: Width of the stem.
        planes: Widths of the eight blocks, four down and four up; the last is the output's.
        depths: Residual blocks in each of the eight.
        stem_kernel: Side of the stem's kernel in voxels.
        norm_momentum: Momentum of the norms of stem, strides and shortcuts; those inside residual
            blocks keep 0.1, for upstream does not pass it on.
    """

    def __init__(
        self,
        in_channels: int = 3,
        stem: int = 32,
        planes: Sequence[int] = (32, 64, 128, 256, 256, 128, 96, 96),
        depths: Sequence[int] = (2, 3, 4, 6, 2, 2, 2, 2),
        stem_kernel: int = 5,
        norm_momentum: float = 0.02,
    ) -> None:
        super().__init__()
        _check(planes, depths)
        self.out_channels = planes[-1]
        blocks = partial(_blocks, momentum=norm_momentum)
        self.conv0p1s1 = SparseConv3d(in_channels, stem, stem_kernel)
        self.bn0 = VoxelNorm(stem, norm_momentum)
        width, skips = stem, [stem, *planes[:3]]
        for i in range(1, _LEVELS + 1):
            # Upstream's names: convolution i from stride 2^(i-1), with stride 2.
            name = f"{i}p{2 ** (i - 1)}s2"
            self.add_module(f"conv{name}", SparseConv3d(width, width, 2, stride=2))
            self.add_module(f"bn{i}", VoxelNorm(width, norm_momentum))
            self.add_module(f"block{i}", blocks(width, planes[i - 1], depths[i - 1]))
            width = planes[i - 1]
        for i in range(_LEVELS, 2 * _LEVELS):
            name, plane = f"{i}p{2 ** (8 - i)}s2", planes[i]
            up = SparseConv3d(width, plane, 2, stride=2, transposed=True)
            self.add_module(f"convtr{name}", up)
            self.add_module(f"bntr{i}", VoxelNorm(plane, norm_momentum))
            self.add_module(f"block{i + 1}", blocks(plane + skips.pop(), plane, depths[i]))
            width = plane

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the network from the constructor arguments in configurations of ESAM and Mask3D.

        Both read its features instead of its last layer, so the number of classes has no meaning.
        """
        names: dict[str, str | None] = {
            "in_channels": "in_channels",
            "out_channels": None,
            "out_fpn": None,
            "D": None,
            "config": None,
        }
        inner_names = {
            "conv1_kernel_size": "stem_kernel",
            "bn_momentum": "norm_momentum",
            "dilations": None,
            "dialations": None,
        }
        where = "Res16UNet34C.from_upstream"
        inner = config.get("config", {})
        dilations = inner.get("dilations", inner.get("dialations", (1,)))
        if any(dilation != 1 for dilation in dilations):
            raise SuiteError(
                expected="dilations of 1, as in every published model",
                found=f"{list(dilations)}",
                where=where,
                cure="no released weights have another; leave dilations out",
            )
        return cls(**renamed(config, names, where), **renamed(inner, inner_names, where))

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Finds this backbone in a checkpoint of ESAM, OneFormer3D or Mask3D."""
        return backbone_state(state, self.state_dict())

    def forward(self, voxels: Voxels) -> Tensor:
        """Maps voxels to features (V, out_channels), in the order of the voxels."""
        grid = voxels.grid
        x = torch.relu(self.bn0(self.conv0p1s1(voxels.features, grid)))
        below: list[tuple[Tensor, SparseGrid]] = []
        for i in range(1, _LEVELS + 1):
            below.append((x, grid))
            x = self._part(f"conv{i}p{2 ** (i - 1)}s2")(x, grid)
            x, grid = torch.relu(self._part(f"bn{i}")(x)), grid.coarser
            x = _through(self._part(f"block{i}"), x, grid)
        for i in range(_LEVELS, 2 * _LEVELS):
            skip, grid = below.pop()
            x = self._part(f"convtr{i}p{2 ** (8 - i)}s2")(x, grid)
            x = torch.cat((torch.relu(self._part(f"bntr{i}")(x)), skip), dim=1)
            x = _through(self._part(f"block{i + 1}"), x, grid)
        return x

    def _part(self, name: str) -> nn.Module:
        return self.get_submodule(name)


class VoxelNorm(nn.Module):
    """Batch normalisation of voxels (V, C), one level down in the keys as in MinkowskiEngine."""

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (V, C)."""
        y: Tensor = self.bn(x)
        return y


class _ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with norms, and a shortcut, projected where the width changes."""

    def __init__(self, inputs: int, outputs: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = SparseConv3d(inputs, outputs)
        self.norm1 = VoxelNorm(outputs)
        self.conv2 = SparseConv3d(outputs, outputs)
        self.norm2 = VoxelNorm(outputs)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.ModuleList(
                (SparseConv3d(inputs, outputs, 1), VoxelNorm(outputs, momentum))
            )

    def forward(self, x: Tensor, grid: SparseGrid) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x, grid)))
        y = self.norm2(self.conv2(y, grid))
        if self.downsample is not None:
            conv, norm = self.downsample
            x = norm(conv(x, grid))
        return torch.relu(y + x)


def _blocks(inputs: int, outputs: int, depth: int, momentum: float) -> nn.ModuleList:
    widths = [inputs, *[outputs] * (depth - 1)]
    return nn.ModuleList(_ResidualBlock(width, outputs, momentum) for width in widths)


def _through(blocks: nn.Module, x: Tensor, grid: SparseGrid) -> Tensor:
    for block in blocks.children():
        x = block(x, grid)
    return x


def _check(planes: Sequence[int], depths: Sequence[int]) -> None:
    if len(planes) != 2 * _LEVELS or len(depths) != 2 * _LEVELS or min(depths) < 1:
        raise SuiteError(
            expected=f"{2 * _LEVELS} planes and as many depths of at least 1",
            found=f"planes {list(planes)}, depths {list(depths)}",
            where="Res16UNet34C",
            cure="list four blocks down, then four up",
        )
