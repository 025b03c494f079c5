"""Stochastic depth (Huang et al., 2016), per sample, as in timm."""

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError


class DropPath(nn.Module):
    """In training, zeroes whole samples with probability `p` and divides the others by 1 - p.

    Args:
        p: Probability of dropping a sample, in [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise SuiteError(
                expected="a probability in [0, 1)",
                found=str(p),
                where="DropPath(p=...)",
                cure="use a rate such as 0.1; 0 turns it off",
            )
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drops along the first axis of (batch, ...)."""
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        mask = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) < keep
        return x * (mask / keep).to(x.dtype)

    def extra_repr(self) -> str:
        """Probability."""
        return f"p={self.p}"


def drop_path_rates(depth: int, rate: float) -> list[float]:
    """Rates that rise evenly from 0 at the first of `depth` blocks to `rate` at the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
