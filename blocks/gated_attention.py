"""Softmax attention with a gate: what some call "MAMBA-S", though nothing in it is a state space.

    q, k, v, z = in_proj(x)
    y = out_proj(softmax(q k^T scale) v * silu(z))

One head as wide as the block. A comparison with Mamba by this mixer compares gates, not scans.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class GatedAttention(nn.Module):
    """Single-head attention whose output is gated, (B, L, E) to (B, L, E).

    Args:
        dim: Width E of the input and output.
        expand: Inner width as a multiple of `dim`.
        scale: Factor of the products; None is inner width ** -0.5.
        fused: Leave the attention to PyTorch, which keeps no L x L weights where the device has a
            kernel for it; the numbers are the same up to rounding.
    """

    def __init__(
        self, dim: int, expand: float = 1.0, scale: float | None = None, fused: bool = True
    ) -> None:
        super().__init__()
        inner = int(expand * dim)
        self.scale = inner**-0.5 if scale is None else scale
        self.fused = fused
        self.in_proj = nn.Linear(dim, 4 * inner, bias=False)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, L, E)."""
        q, k, v, z = self.in_proj(x).chunk(4, dim=-1)
        if self.fused:
            # With an axis for its one head; kernels that keep no weights take nothing else.
            q, k, v = (part.unsqueeze(1) for part in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale).squeeze(1)
        else:
            y = (q @ k.mT * self.scale).softmax(-1) @ v
        out: Tensor = self.out_proj(y * F.silu(z))
        return out
