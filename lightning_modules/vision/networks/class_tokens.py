"""Where class tokens stand among the patches: in the middle, first, at both ends, or nowhere.

Sequences are (B, M + count, D); M patches in row-major order, class tokens in between.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.positions import Grid, resize_position_table

ClassToken = Literal["middle", "first", "double", "none"]


@dataclass(frozen=True)
class ClassTokens:
    """Places of the class tokens in a sequence.

    Args:
        kind: `middle` at index M // 2, `first` at 0, `double` at 0 and M + 1, or `none`.
    """

    kind: ClassToken

    def __post_init__(self) -> None:
        if self.kind not in get_args(ClassToken):
            raise SuiteError(
                expected="one of " + ", ".join(get_args(ClassToken)),
                found=repr(self.kind),
                where="class_token",
                cure="the published Vim has its token in the middle, ViT has it first",
            )

    @property
    def count(self) -> int:
        """Class tokens in a sequence."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that hold them, in hustvl/Vim's words."""
        if self.kind == "double":
            return ("cls_token_head", "cls_token_tail")
        return () if self.kind == "none" else ("cls_token",)

    def rows(self, patches: int) -> list[int]:
        """Indices of the class tokens in a sequence of `patches` patches and themselves."""
        places = {"middle": [patches // 2], "first": [0], "double": [0, patches + 1]}
        return places.get(self.kind, [])

    def insert(self, patches: Tensor, own: Tensor) -> Tensor:
        """Puts the class tokens (B, count, D) among the patches (B, M, D)."""
        match self.kind:
            case "none":
                return patches
            case "double":
                return torch.cat((own[:, :1], patches, own[:, 1:]), dim=1)
        (row,) = self.rows(patches.shape[1])
        return torch.cat((patches[:, :row], own, patches[:, row:]), dim=1)

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Takes a sequence apart into patches (B, M, D) and class tokens (B, count, D)."""
        match self.kind:
            case "none":
                return tokens, tokens[:, :0]
            case "double":
                return tokens[:, 1:-1], torch.cat((tokens[:, :1], tokens[:, -1:]), dim=1)
        (row,) = self.rows(tokens.shape[1] - 1)
        return torch.cat((tokens[:, :row], tokens[:, row + 1 :]), 1), tokens[:, row : row + 1]

    def resize(self, table: Tensor, grid: Grid, new_grid: Grid, upstream: bool = False) -> Tensor:
        """Resizes a position table to another patch grid; class tokens keep their positions.

        Args:
            table: (1, rows * columns + count, D).
            grid: Rows and columns it was learned for.
            new_grid: Rows and columns wanted.
            upstream: Take the first rows for the class tokens', wherever they are, as hustvl/Vim
                does when it fine-tunes.
        """
        if grid == new_grid:
            return table
        if upstream:
            own, patches = table[:, : self.count], table[:, self.count :]
            return torch.cat((own, resize_position_table(patches, grid, None, new_grid, None)), 1)
        patches, own = self.split(table)
        return self.insert(resize_position_table(patches, grid, None, new_grid, None), own)
