"""The block of VMamba (arXiv 2401.10166): a 2-D selective scan, then maybe an MLP, each a residual.

    x = x + drop_path(op(norm(x)))             op = SS2D
    x = x + drop_path(mlp(norm2(x)))           where mlp_ratio > 0

Grids are (B, H, W, D), channels last. MzeroMiko/VMamba's current blocks take (B, D, H, W); their
weights are the same, and so are the state-dict keys here.
"""

from typing import Any, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_

from blocks import SS2D, DropPath
from blocks.grid_layers import PointwiseLinear
from lightning_modules.vision.networks.upstream_vmamba import block_arguments


class VSSBlock(nn.Module):
    """Residual block around a 2-D selective scan, (B, H, W, D) to the same.

    Args:
        dim: Width D.
        d_state: States per channel of the scan; 16 in the first models, 1 in the current ones.
        ssm_ratio: Inner width of the scan as a multiple of `dim`.
        dt_rank: Rank of the step-size projections; "auto" is ceil(dim / 16).
        conv_bias: Whether the depthwise convolution before the scan has a bias.
        forward_type: Form of the scan, see `blocks.forward_type`.
        mlp_ratio: Inner width of the MLP as a multiple of `dim`; 0 = no MLP.
        drop_path: Probability of dropping each of the two branches for a sample, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 1,
        ssm_ratio: float = 1.0,
        dt_rank: int | Literal["auto"] = "auto",
        conv_bias: bool = False,
        forward_type: str = "v05_noz",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = GridNorm(dim)
        self.op = SS2D(
            dim,
            d_state=d_state,
            ssm_ratio=ssm_ratio,
            dt_rank=dt_rank,
            conv_bias=conv_bias,
            forward_type=forward_type,
        )
        self.drop_path = DropPath(drop_path)
        if mlp_ratio > 0:
            self.norm2 = GridNorm(dim)
            self.mlp = _Mlp(dim, int(mlp_ratio * dim))

    @classmethod
    def from_upstream(cls, config: dict[str, Any]) -> Self:
        """Builds the block from the constructor arguments of MzeroMiko/VMamba's `VSSBlock`."""
        return cls(**block_arguments(config))

    def forward(self, x: Tensor) -> Tensor:
        """Mixes a grid (B, H, W, D)."""
        x = x + self.drop_path(self.op(self.norm(x)))
        if hasattr(self, "mlp"):
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


class GridNorm(nn.LayerNorm):
    """LayerNorm in the type of its weight: in a 16-bit network the residual stream stays float32.

    Args:
        dim: Length D of the last axis.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., D)."""
        return super().forward(x.to(self.weight.dtype))


def initialise_linears(network: nn.Module) -> None:
    """Starts every linear layer as VMamba does: truncated normal of 0.02, no bias.

    Step sizes, decays and convolutions keep the start their modules gave them.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                zeros_(module.bias)


class _Mlp(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.fc1 = PointwiseLinear(dim, inner)
        self.fc2 = PointwiseLinear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y
