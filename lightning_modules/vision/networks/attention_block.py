"""The block of ViT (arXiv 2010.11929): attention, then maybe an MLP, each a residual after a norm.

    x = x + drop_path(attn(norm1(x)))
    x = x + drop_path(mlp(norm2(x)))           where mlp_ratio > 0

Tokens (B, L, D); keys `norm1`, `attn`, `norm2`, `mlp.fc1`, `mlp.fc2` as in timm.
"""

from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_

from blocks import DropPath
from blocks.mlp import Mlp


class AttentionBlock(nn.Module):
    """Pre-norm residual block around any mixer of tokens.

    Args:
        dim: Width D.
        attn: Maps (B, L, D) to the same.
        mlp_ratio: Inner width of the MLP as a multiple of `dim`; 0 = no MLP.
        drop_path: Probability of dropping each branch for a sample, in [0, 1).
        norm_eps: Added to the variance.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attn
        self.drop_path = DropPath(drop_path)
        if mlp_ratio > 0:
            self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
            self.mlp = Mlp(dim, int(mlp_ratio * dim))

    def forward(self, x: Tensor) -> Tensor:
        """Mixes tokens (B, L, D)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        if hasattr(self, "mlp"):
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


def initialise_blocks(blocks: nn.Module) -> None:
    """Starts every linear layer as ViT does: truncated normal of 0.02, no bias."""
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                zeros_(module.bias)
