"""Queries learn of each other by scans along space-filling curves (LaSSM, RayYoh/LaSSM).

Queries are sorted twice along Hilbert curves of their places, one shared Mamba runs over both
orders, and each query gets back the mean of its two outputs: linear in the number of queries, where
self-attention is quadratic.
"""

import torch
from torch import Tensor, nn

from blocks import BiMamba
from blocks.serialization import Order, serialize

_ORDERS: tuple[Order, ...] = ("hilbert", "hilbert-trans")
# Cells of the curve, metres; and bits per axis: 2^10 cells are 20 m.
_CELL, _BITS = 0.02, 10


class QueryScan(nn.Module):
    """In the place of self-attention, (Q, D) to (Q, D); post-norm.

    Args:
        dim: Width D.
        dropout: Of the output, in [0, 1).
        d_state: State of the scan.
    """

    def __init__(self, dim: int, dropout: float, d_state: int = 64) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(dim)
        self.mamba = BiMamba(dim, d_state=d_state)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, places: Tensor) -> Tensor:
        """Mixes queries (Q, D) at places (Q, 3) in metres."""
        orders = curve_orders(places)
        sequences = self.norm_in(query)[orders]
        mixed = self.mamba(sequences)
        back = torch.empty_like(mixed).scatter(1, orders.unsqueeze(-1).expand_as(mixed), mixed)
        out: Tensor = self.norm(query + self.dropout(back.mean(0)))
        return out


@torch.no_grad()
def curve_orders(places: Tensor) -> Tensor:
    """Orders (2, Q) of places (Q, 3) along two Hilbert curves."""
    grid = ((places - places.amin(0)) / _CELL).floor().long().clamp(max=2**_BITS - 1)
    sample = torch.zeros(len(grid), dtype=torch.long, device=grid.device)
    return torch.stack([serialize(grid, sample, _BITS, order).argsort() for order in _ORDERS])
