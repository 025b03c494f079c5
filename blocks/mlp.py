"""The two-layer perceptron of Transformers, on the last axis; keys `fc1`, `fc2` as in timm."""

import torch.nn.functional as F
from torch import Tensor, nn


class Mlp(nn.Module):
    """fc2(gelu(fc1(x))) on (..., dim), with dropout after both layers.

    Args:
        dim: Width of input and output.
        hidden: Width between.
        dropout: Share of the numbers set to 0 in training.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., dim) to (..., dim)."""
        out: Tensor = self._dropped(self.fc2(self._dropped(F.gelu(self.fc1(x)))))
        return out

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout and self.training else x
