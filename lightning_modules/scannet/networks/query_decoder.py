"""Superpoints as queries for instances: the decoder of OneFormer3D and of single-view ESAM.

Follows filaPro/oneformer3d (arXiv 2311.14405) and `ScanNetMixQueryDecoder` of xuxw98/ESAM, with
their keys. Outputs are read before the first layer and after each; early masks are over superpoints
and, in ESAM, later ones over points.

Shapes, one sample: S superpoints, P points, Q queries, C width of the features, D width inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from blocks import Recorded
from lightning_modules.scannet.networks.query_order import QueryScan
from lightning_modules.scannet.networks.superpoint_pooling import pooled


@dataclass(frozen=True)
class DecoderInput:
    """What the decoder reads of a sample.

    Args:
        superpoints: Pooled features, (S, C).
        points: Features of the points, (P, C).
        xyz: Places of the points in metres, (P, 3).
        superpoint: Superpoint of each point, (P,).
        weight: Pooling weight of each point, (P, 1).
    """

    superpoints: Tensor
    points: Tensor
    xyz: Tensor
    superpoint: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Decoded:
    """What was read from the queries of a sample at one depth.

    Args:
        classes: Logits, (Q, classes + 1); the last one is "no object".
        masks: Logits over superpoints (Q, S) or points (Q, P).
        over_points: Which of the two.
        semantic: Logits (Q, semantic classes + 1) of the superpoint each query came from, or None
            but at the last depth.
    """

    classes: Tensor
    masks: Tensor
    over_points: bool
    semantic: Tensor | None = None


class QueryDecoder(Recorded, nn.Module):
    """Decodes queries, made of superpoints, into classes and masks.

    Args:
        in_channels: Width C of the features.
        num_classes: Instance classes; 1 for class-agnostic masks, 198 for ScanNet200.
        num_semantic: Semantic classes without the ignored one, 200 for ScanNet200.
        dim: Width D of the queries.
        depth: Layers.
        num_heads: Heads of the attentions.
        hidden_dim: Width inside the feed-forward layers.
        dropout: Of attentions and feed-forward layers, in [0, 1).
        point_masks_from: First output whose masks are over points, counted from 0 = before the
            first layer (ESAM: 2); `null` keeps all on superpoints (OneFormer3D).
        self_mixer: How queries learn of each other: `attention`, or `scan`: two bidirectional
            state-space scans along space-filling curves (LaSSM, RayYoh/LaSSM).
    """

    def __init__(
        self,
        in_channels: int = 96,
        num_classes: int = 198,
        num_semantic: int = 200,
        dim: int = 256,
        depth: int = 3,
        num_heads: int = 8,
        hidden_dim: int = 1024,
        dropout: float = 0.0,
        point_masks_from: int | None = 2,
        self_mixer: Literal["attention", "scan"] = "attention",
    ) -> None:
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.num_semantic, self.point_masks_from = num_semantic, point_masks_from
        self.input_proj = nn.Sequential(nn.Linear(in_channels, dim), nn.LayerNorm(dim), nn.ReLU())
        self.query_proj = _mlp(in_channels, dim, dim)
        self.cross_attn_layers = nn.ModuleList(
            CrossAttention(dim, num_heads, dropout) for _ in range(depth)
        )
        self.self_attn_layers = nn.ModuleList(
            QueryScan(dim, dropout)
            if self_mixer == "scan"
            else SelfAttention(dim, num_heads, dropout)
            for _ in range(depth)
        )
        self.ffn_layers = nn.ModuleList(FeedForward(dim, hidden_dim, dropout) for _ in range(depth))
        self.out_norm = nn.LayerNorm(dim)
        self.out_cls = _mlp(dim, dim, num_classes + 1)
        self.out_sem = nn.Linear(dim, num_semantic + 1)
        self.x_mask = _mlp(in_channels, dim, dim)
        if point_masks_from is not None:
            self.x_pts_mask = _mlp(in_channels + 3, dim, dim)
        for parameter in (p for layers in self._mixers() for p in layers.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the decoder from the configuration of ESAM or OneFormer3D."""
        masks: Sequence[str] = config["mask_pred_mode"]
        stuff = 2
        semantic = config["num_semantic_classes"]
        return cls(
            in_channels=config["in_channels"],
            num_classes=1 if config["agnostic"] else semantic - stuff,
            num_semantic=semantic,
            dim=config["d_model"],
            depth=config["num_layers"],
            num_heads=config["num_heads"],
            hidden_dim=config["hidden_dim"],
            point_masks_from=masks.index("P") if "P" in masks else None,
        )

    def forward(self, sample: DecoderInput, queries: Tensor | None = None) -> list[Decoded]:
        """Decodes one sample.

        Args:
            sample: Its features.
            queries: Superpoints that become queries, (Q,); all of them if left out.

        Returns:
            Outputs before the first layer and after each.
        """
        chosen = sample.superpoints if queries is None else sample.superpoints[queries]
        memory, query = self.input_proj(sample.superpoints), self.query_proj(chosen)
        features = self._mask_features(sample)
        where = None if not self._scans else query_places(sample, queries)
        outputs = [self._read(query, features, 0)]
        for i, (cross, mixer, ffn) in enumerate(zip(*self._mixers(), strict=True), 1):
            query = cross(query, memory, self._blocked(outputs[-1], sample))
            query = ffn(mixer(query) if where is None else mixer(query, where))
            outputs.append(self._read(query, features, i))
        return outputs

    @property
    def _scans(self) -> bool:
        return any(isinstance(layer, QueryScan) for layer in self.self_attn_layers)

    def _mixers(self) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
        return self.cross_attn_layers, self.self_attn_layers, self.ffn_layers

    def _mask_features(self, sample: DecoderInput) -> tuple[Tensor, Tensor | None]:
        over_superpoints: Tensor = self.x_mask(sample.superpoints)
        if self.point_masks_from is None:
            return over_superpoints, None
        return over_superpoints, self.x_pts_mask(torch.cat((sample.xyz, sample.points), 1))

    def _read(self, query: Tensor, features: tuple[Tensor, Tensor | None], depth: int) -> Decoded:
        query = self.out_norm(query)
        over_points = self.point_masks_from is not None and depth >= self.point_masks_from
        chosen = features[1] if over_points else features[0]
        assert chosen is not None
        last = depth == len(self.cross_attn_layers)
        return Decoded(
            self.out_cls(query),
            query @ chosen.T,
            over_points,
            self.out_sem(query) if last else None,
        )

    @torch.no_grad()
    def _blocked(self, previous: Decoded, sample: DecoderInput) -> Tensor:
        """Superpoints (Q, S) a query must not look at: those outside its mask so far."""
        blocked = previous.masks < 0
        if previous.over_points:
            # A superpoint is outside if its points are, each by its weight in the pooling.
            outside = (blocked.to(sample.weight.dtype) * sample.weight.T).T
            share = pooled(outside, sample.superpoint, len(sample.superpoints), "mean").T
            least = share.amin(1, keepdim=True)
            return (share > 0.5) & (share != least)
        # A query that may look at nothing would have no attention at all: it looks at everything.
        return blocked & ~blocked.all(1, keepdim=True)


def query_places(sample: DecoderInput, queries: Tensor | None) -> Tensor:
    """Centres (Q, 3) of the superpoints that became queries."""
    centres = pooled(sample.xyz, sample.superpoint, len(sample.superpoints), "mean")
    return centres if queries is None else centres[queries]


class CrossAttention(nn.Module):
    """Queries look at superpoints; post-norm."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, memory: Tensor, blocked: Tensor) -> Tensor:
        """(Q, D) of queries (Q, D) and superpoints (S, D), where not blocked (Q, S)."""
        seen = self.attn(query, memory, memory, attn_mask=blocked, need_weights=False)[0]
        out: Tensor = self.norm(query + seen)
        return out


class SelfAttention(nn.Module):
    """Queries look at each other; post-norm."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor) -> Tensor:
        """(Q, D) of (Q, D)."""
        seen = self.attn(query, query, query, need_weights=False)[0]
        out: Tensor = self.norm(query + seen)
        return out


class FeedForward(nn.Module):
    """Two linear layers per query; post-norm."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, dim),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor) -> Tensor:
        """(Q, D) of (Q, D)."""
        out: Tensor = self.norm(query + self.net(query))
        return out


def _mlp(before: int, inside: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, inside), nn.ReLU(), nn.Linear(inside, after))
