"""Where VMamba's grids change their resolution: stems and downsampling, with upstream's keys.

    stem v1        conv 4x4 stride 4, norm                               images to a quarter
    stem v2        conv 3x3 stride 2, norm, GELU, conv 3x3 stride 2, norm
    downsample v1  the four pixels of each 2x2 square side by side, norm, linear
    downsample v3  conv 3x3 stride 2, norm

All take and give channels-last grids (B, H, W, D), images among them. v1 belongs to the first
models, v2 and v3 to the current ones. Source: MzeroMiko/VMamba, classification/models/vmamba.py.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.errors import SuiteError
from lightning_modules.vision.networks.vss_block import GridNorm


def stem(version: Literal["v1", "v2"], in_chans: int, dim: int) -> nn.Sequential:
    """Images (B, H, W, in_chans) to a grid (B, H / 4, W / 4, dim)."""
    # The identities stand where upstream permutes, and count in its keys.
    match version:
        case "v1":
            return nn.Sequential(GridConv2d(in_chans, dim, 4, 4), nn.Identity(), GridNorm(dim))
        case "v2":
            return nn.Sequential(
                GridConv2d(in_chans, dim // 2, 3, 2, 1), nn.Identity(), GridNorm(dim // 2),
                nn.Identity(), nn.GELU(),
                GridConv2d(dim // 2, dim, 3, 2, 1), nn.Identity(), GridNorm(dim),
            )  # fmt: skip
    raise _unknown("stem", version, "v1 or v2")


def downsample(version: Literal["v1", "v3"], dim: int) -> nn.Module:
    """A grid (B, H, W, dim) to (B, ceil(H / 2), ceil(W / 2), 2 dim)."""
    match version:
        case "v1":
            return PatchMerging2D(dim)
        case "v3":
            conv = GridConv2d(dim, 2 * dim, 3, 2, 1)
            return nn.Sequential(nn.Identity(), conv, nn.Identity(), GridNorm(2 * dim))
    raise _unknown("downsample", version, "v1 or v3")


class PatchMerging2D(nn.Module):
    """Four neighbours become one position of twice the width; odd sides are padded with zeros.

    Args:
        dim: Width D of the input; the output has 2 D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = GridNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) to (B, ceil(H / 2), ceil(W / 2), 2 D)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Rows move first, as in Swin: (0, 0), (1, 0), (0, 1), (1, 1).
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(neighbours, -1)))
        return merged


class GridConv2d(nn.Conv2d):
    """nn.Conv2d over (B, H, W, D), in the type of its weight; nothing is copied to change axes."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (B, H, W, D)."""
        return super().forward(x.permute(0, 3, 1, 2).to(self.weight.dtype)).permute(0, 2, 3, 1)


def _unknown(name: str, found: str, known: str) -> SuiteError:
    return SuiteError(
        expected=f"{name} {known}",
        found=repr(found),
        where=f"VMamba({name}=...)",
        cure="the current models use stem v2 with downsample v3, the first ones v1 with v1",
    )
