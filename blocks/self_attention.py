"""Multi-head self-attention (Vaswani et al., 2017) with the keys `qkv`, `proj` of timm."""

import torch.nn.functional as F
from torch import Tensor, nn

from blocks.errors import SuiteError


class SelfAttention(nn.Module):
    """Every token looks at all of its sequence, (B, N, C) to (B, N, C).

    Args:
        dim: Width C, a multiple of `num_heads`.
        num_heads: Heads.
        qkv_bias: Whether the first projection has a bias.
        scale: Factor of the products; None is head width ** -0.5.
        attention_dropout: Share of the weights set to 0 in training.
        dropout: Share of the output set to 0 in training.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        scale: float | None = None,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise SuiteError(
                expected="a width that the heads can share",
                found=f"dim={dim}, num_heads={num_heads}",
                where="SelfAttention",
                cure="choose dim as a multiple of num_heads",
            )
        self.num_heads, self.scale = num_heads, scale
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, N, C)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
        out: Tensor = self.dropout(self.proj(y.transpose(1, 2).flatten(2)))
        return out
