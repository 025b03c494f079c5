"""Small attention necks of BiFusion: over the patches of an image, and over balls of points."""

import torch
from torch import Tensor, nn

from lightning_modules.scannet.networks.neighbours import nearest_within
from lightning_modules.scannet.networks.superpoint_pooling import pooled


class PatchAttention(nn.Module):
    """Attention and feed-forward layer over patches, norms after them.

    After `TinySA` of Xin200203/3D_Reconstruction, with its keys.

    Args:
        dim: Width C.
        num_heads: Heads.
    """

    def __init__(self, dim: int, num_heads: int = 4) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, h, w, C) of (B, h, w, C)."""
        x = patches.flatten(1, 2)
        x = self.norm1(x + self.mha(x, x, x, need_weights=False)[0])
        out: Tensor = self.norm2(x + self.ffn(x)).view_as(patches)
        return out


class BallAttention(nn.Module):
    """Centres look at the points of a ball around them, points at the centres next to them.

    Centres are the means of the cells of a grid, so that nothing is drawn at random.

    Args:
        dim: Width C.
        num_heads: Heads.
        radius: Of a ball, metres.
        neighbours: Most points of a ball.
        cell: Side of the grid's cells, metres.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        radius: float = 0.3,
        neighbours: int = 32,
        cell: float = 0.2,
    ) -> None:
        super().__init__()
        self.radius, self.neighbours, self.cell = radius, neighbours, cell
        self.mha = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.place = nn.Linear(3, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, xyz: Tensor, sample: Tensor) -> Tensor:
        """(P, C) of features (P, C) at places (P, 3) in metres, of samples (P,)."""
        cells = torch.cat((sample.unsqueeze(1), (xyz / self.cell).floor().long()), 1)
        found, group = torch.unique(cells, dim=0, return_inverse=True)
        count, owner = len(found), found[:, 0]
        centres, query = pooled(xyz, group, count, "mean"), pooled(x, group, count, "mean")
        # Some point of a cell is within half its diagonal, 0.17 m, of their mean: no empty ball.
        ball, distance = nearest_within(xyz, sample, self.neighbours, self.radius, centres, owner)
        empty = distance.isinf()
        offsets = (xyz[ball] - centres.unsqueeze(1)) / self.radius
        keys = x[ball] + self.place(offsets)
        seen = self.mha(query.unsqueeze(1), keys, keys, key_padding_mask=empty, need_weights=False)
        h = self.norm1(query + seen[0].squeeze(1))
        h = self.norm2(h + self.ffn(h))
        near, distance = nearest_within(centres, owner, 8, 3 * self.cell, xyz, sample)
        weight = 1 / (distance + 1e-8)  # 0 for those that are not there.
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-8)
        spread: Tensor = (h[near] * weight.unsqueeze(-1)).sum(1)
        return x + spread
