"""A residual block for sequences of skeletons whose mixer sees one axis: joints or frames.

    x = x + drop_path(s1 mixer(norm1(x)))
    x = x + drop_path(s2 mlp(norm2(x)))

The frame is MetaFormer's (Yu et al., 2022), as in TaatiTeam/MotionAGFormer. x is (B, T, J, C).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from blocks import DropPath
from blocks.mlp import Mlp

Axis = Literal["joints", "frames"]


def along(axis: Axis, mixer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a mixer of tokens (B', N, C) to the joints of each frame, or the frames of a joint.

    Args:
        axis: Which of them the tokens are.
        mixer: Maps (B', N, C) to the same.
        x: (B, T, J, C).
    """
    if axis == "joints":
        return mixer(x.flatten(0, 1)).view(x.shape)
    tokens = x.transpose(1, 2)
    return mixer(tokens.flatten(0, 1)).view(tokens.shape).transpose(1, 2)


class MetaFormerBlock(nn.Module):
    """Mixer and MLP, each normalised before, scaled after and added.

    Args:
        mixer: Maps tokens (B', N, C) to the same.
        axis: What the tokens are.
        dim: Width C.
        mlp_ratio: Inner width of the MLP as a multiple of C.
        dropout: Of the MLP.
        drop_path: Probability of dropping a branch for a sample.
        layer_scale: Start of the factors per channel; None has none.
    """

    layer_scale_1: nn.Parameter | None
    layer_scale_2: nn.Parameter | None

    def __init__(
        self,
        mixer: nn.Module,
        axis: Axis,
        dim: int,
        mlp_ratio: float = 4,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = 1e-5,
    ) -> None:
        super().__init__()
        self.axis: Axis = axis
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), dropout)
        self.drop_path = DropPath(drop_path)
        for name in ("layer_scale_1", "layer_scale_2"):
            scale = None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))
            self.register_parameter(name, scale)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, T, J, C)."""
        mixed = along(self.axis, self.mixer, self.norm1(x))
        x = x + self.drop_path(scaled(mixed, self.layer_scale_1))
        x = x + self.drop_path(scaled(self.mlp(self.norm2(x)), self.layer_scale_2))
        return x


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """X times a factor per channel, if there is one."""
    return x if scale is None else x * scale
