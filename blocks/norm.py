"""Root-mean-square normalisation (Zhang and Sennrich, 2019), as used by Mamba and Vim."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, without mean and bias.

    Computes in float32 (float64 if x is). Emits the autocast type inside an autocast region, so
    that a float32 residual stream feeds 16-bit layers; elsewhere the type of x.

    Args:
        dim: Length of the last axis.
        eps: Added to the mean square; 1e-5 in Mamba-1 and Vim.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., dim)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        y = y * self.weight.to(wide.dtype)
        device = x.device.type
        # Autocast leaves float64 alone; so does the norm.
        autocast = torch.is_autocast_enabled(device) and x.dtype != torch.float64
        return y.to(torch.get_autocast_dtype(device) if autocast else x.dtype)

    def extra_repr(self) -> str:
        """Size and epsilon."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
