"""Rotary positions of a patch grid (RoFormer, EVA-02), in the form of hustvl/Vim's `rope.py`.

Neighbouring channels (x0, x1) turn by an angle: x0 cos - x1 sin, x1 cos + x0 sin. The first half
of the channels turns with the row, the second with the column.
"""

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.positions import Grid


class RotaryPositions(nn.Module):
    """Tables of cosines and sines, and the rotation by them.

    Args:
        dim: Width D of a token, a multiple of 4.
        grid: Rows and columns of patches.
        pretrained_side: Units over which the patches of a side are spread, whatever their number;
            the side of the grid in training keeps angles alike at other image sizes.
    """

    def __init__(self, dim: int, grid: Grid, pretrained_side: int = 14) -> None:
        super().__init__()
        if dim % 4:
            raise SuiteError(
                expected="a width that is a multiple of 4, for pairs of rows and of columns",
                found=f"{dim}",
                where="network.init_args.dim, with rope",
                cure="change dim, or set rope: none",
            )
        self.dim, self.pretrained_side = dim, pretrained_side
        self.freqs_cos: Tensor
        self.freqs_sin: Tensor
        self.set_grid(grid)

    def set_grid(self, grid: Grid) -> None:
        """Computes the tables for another grid."""
        self.grid = grid
        for name, table in zip(("freqs_cos", "freqs_sin"), self._tables(grid), strict=True):
            old = self._buffers.get(name)
            self.register_buffer(name, table if old is None else table.to(old))

    def rotation(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Cosines and sines (patches, D) of a grid."""
        if grid == self.grid:
            return self.freqs_cos, self.freqs_sin
        cos, sin = self._tables(grid)
        return cos.to(self.freqs_cos), sin.to(self.freqs_sin)

    def _tables(self, grid: Grid) -> tuple[Tensor, Tensor]:
        half = self.dim // 2
        frequencies = 10000 ** -(torch.arange(0, half, 2)[: half // 2].float() / half)
        rows, columns = (
            (torch.arange(side) / side * self.pretrained_side)
            .outer(frequencies)
            .repeat_interleave(2, dim=-1)
            for side in grid
        )
        angles = torch.cat(
            (rows[:, None].expand(*grid, -1), columns[None].expand(*grid, -1)), dim=-1
        ).flatten(0, 1)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the channel pairs of tokens.

    Args:
        x: (B, L, D).
        rotation: Cosines and sines, (L, D).
    """
    cos, sin = rotation
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(x.dtype)
