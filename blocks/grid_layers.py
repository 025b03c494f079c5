"""Layers over a grid (B, H, W, D), channels last, under the state-dict keys of MzeroMiko/VMamba.

Upstream has two of each, for (B, H, W, D) and (B, D, H, W); their weights are the same.
Shapes: B batch, H rows, W columns, D channels.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseLinear(nn.Linear):
    """nn.Linear over the last axis that also loads the (out, in, 1, 1) weight of a convolution."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any, **more: Any
    ) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None and weight.shape[2:] == (1, 1):
            state_dict[prefix + "weight"] = weight.flatten(1)
        super()._load_from_state_dict(state_dict, prefix, *others, **more)


class DepthwiseConv2d(nn.Conv2d):
    """A centred depthwise convolution, computed in the type of its weight.

    Args:
        dim: Number of channels D.
        width: Side of the kernel, odd.
        bias: Whether it has a bias.
    """

    def __init__(self, dim: int, width: int, bias: bool) -> None:
        super().__init__(dim, dim, width, padding=width // 2, groups=dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (B, H, W, D)."""
        return super().forward(x.permute(0, 3, 1, 2).to(self.weight.dtype)).permute(0, 2, 3, 1)


def out_norm(name: str, dim: int) -> nn.Module:
    """What follows the scan in `SS2D`.

    Args:
        name: "layer", or the name in a forward type, see `blocks.forward_type`.
        dim: Number of channels D.

    Returns:
        A module from (B, H, W, D) to the same.
    """
    match name:
        case "none":
            return nn.Identity()
        case "softmax":
            return _SpatialSoftmax()
        case "sigmoid":
            return nn.Sigmoid()
        case "dwconv3":
            # The identities stand where upstream permutes, and count in its keys.
            return nn.Sequential(nn.Identity(), DepthwiseConv2d(dim, 3, bias=False))
        case "cnorm":
            conv = DepthwiseConv2d(dim, 3, bias=False)
            return nn.Sequential(_LayerNorm(dim), nn.Identity(), conv)
    return _LayerNorm(dim)


class _LayerNorm(nn.LayerNorm):
    """nn.LayerNorm in the type of its input: the float32 of a scan also among 16-bit weights."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class _SpatialSoftmax(nn.Module):
    """Softmax over the positions of (B, H, W, D), per channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2).softmax(1).view(x.shape)
