"""Positions: sinusoids, and learned tables that follow the image size.

A learned table is (1, tokens, dim): one row a patch in row-major order, and one row for the class
token if there is one. Resizing takes the class row out, resizes the patch grid and puts it back.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, cat

from blocks.errors import SuiteError

Grid = tuple[int, int]


def sinusoids(count: int, dim: int) -> Tensor:
    """Sinusoids of many wavelengths (Vaswani et al., 2017), (count, dim).

    Even features are sines, odd ones cosines, of position * 10000^(-2i / dim).

    Args:
        count: Positions, from 0.
        dim: Features, even.
    """
    rates = torch.exp(torch.arange(0, dim, 2).float() * (-math.log(10000.0) / dim))
    angles = torch.arange(count).float().unsqueeze(1) * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def resize_position_table(
    table: Tensor, grid: Grid, class_row: int | None, new_grid: Grid, new_class_row: int | None
) -> Tensor:
    """Resizes a position table to another patch grid (bicubic, as in hustvl/Vim and DeiT).

    Args:
        table: Shape (1, rows * columns [+ 1], dim).
        grid: Rows and columns of patches the table was learned for.
        class_row: Row that belongs to the class token, `None` if there is none.
        new_grid: Rows and columns of patches wanted.
        new_class_row: Where the class token's row goes in the result.

    Returns:
        Shape (1, new rows * new columns [+ 1], dim).

    Raises:
        SuiteError: The table does not have the rows that `grid` and `class_row` ask for.
    """
    patches = grid[0] * grid[1]
    if table.shape[1] != patches + (class_row is not None):
        raise SuiteError(
            expected=f"{patches} patch rows{' and a class-token row' * (class_row is not None)}",
            found=f"a table of shape {tuple(table.shape)}",
            where="position embedding",
            cure="give the image size, patch size and stride the table was trained with",
        )
    class_token = table[:, :0]
    if class_row is not None:
        class_token = table[:, class_row : class_row + 1]
        table = cat((table[:, :class_row], table[:, class_row + 1 :]), dim=1)
    if grid != new_grid:
        image = table.view(len(table), *grid, -1).permute(0, 3, 1, 2).float()
        image = F.interpolate(image, size=new_grid, mode="bicubic", align_corners=False)
        table = image.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)
    row = new_class_row or 0
    return cat((table[:, :row], class_token, table[:, row:]), dim=1)
