"""Losses that make both branches of BiFusion agree, in float32.

After Xin200203/3D_Reconstruction: the image's features learn from them only by a small share of the
gradient. P points of a batch, C channels, S superpoints.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.scannet.networks.neighbours import nearest_within
from lightning_modules.scannet.networks.superpoint_pooling import pooled

# Neighbours of `neighbour_loss` and the farthest of them, metres.
_NEIGHBOURS, _RADIUS = 8, 0.3


@dataclass(frozen=True)
class Consistency:
    """The loss between both branches.

    Args:
        weight: Of the loss; 0.02 in the simple published recipe, 0.1 in the full one; 0 = none.
        kind: `logsig`: -log sigmoid(cos / temperature) of each point, nearly flat above a cosine of
            0.3; `cosine`: 1 - cos of each point; `infonce`: each superpoint of one branch must find
            itself among those of the other.
        temperature: Of `logsig` and `infonce`.
        gradient_flow_ratio: Share of the gradient that reaches the image's branch, in 0..1.
        superpoints: Most superpoints that `infonce` compares, drawn at random.
        neighbour_weight: Of the loss between fused features of neighbouring points; 0 = none.
        unseen_weight: Of the loss that draws points without a pixel to their most similar point
            with one; 0 = none. For scenes; in a single view every point has a pixel.
    """

    weight: float = 0.02
    kind: Literal["logsig", "cosine", "infonce"] = "logsig"
    temperature: float = 0.07
    gradient_flow_ratio: float = 0.01
    superpoints: int = 512
    neighbour_weight: float = 0.0
    unseen_weight: float = 0.0

    def clip_loss(self, image: Tensor, points: Tensor, valid: Tensor, superpoint: Tensor) -> Tensor:
        """Weighted loss between the branches over points that have a pixel.

        Args:
            image: Features of the points' pixels, (P, C).
            points: Features of the points, (P, C).
            valid: Points with a pixel, (P,).
            superpoint: (P,).
        """
        image = throttled(image.float(), self.gradient_flow_ratio)[valid]
        points, superpoint = points.float()[valid], superpoint[valid]
        with torch.autocast(image.device.type, enabled=False):
            return self.weight * self._distance(image, points, superpoint)

    def _distance(self, image: Tensor, points: Tensor, superpoint: Tensor) -> Tensor:
        if not len(image):
            return image.sum() + points.sum()  # 0, with gradients for every process.
        if self.kind == "infonce":
            return self._contrast(image, points, superpoint)
        cosine = F.cosine_similarity(image, points, eps=1e-8)
        if self.kind == "cosine":
            return (1 - cosine).mean()
        return -((cosine / self.temperature).sigmoid() + 1e-8).log().mean()

    def auxiliary_loss(
        self, features: Tensor, xyz: Tensor, sample: Tensor, valid: Tensor
    ) -> Tensor:
        """Weighted losses within the fused features (P, C)."""
        loss = features.new_zeros((), dtype=torch.float32)
        if self.neighbour_weight:
            loss = loss + self.neighbour_weight * neighbour_loss(features, xyz, sample)
        if self.unseen_weight:
            loss = loss + self.unseen_weight * unseen_loss(features, valid)
        return loss

    def _contrast(self, image: Tensor, points: Tensor, superpoint: Tensor) -> Tensor:
        found, group = torch.unique(superpoint, return_inverse=True)
        image, points = (
            F.normalize(pooled(x, group, len(found), "mean"), dim=1, eps=1e-8)
            for x in (image, points)
        )
        if len(found) > self.superpoints:
            chosen = torch.randperm(len(found), device=found.device)[: self.superpoints]
            image, points = image[chosen], points[chosen]
        logits = points @ image.T / self.temperature
        same = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2


def throttled(x: Tensor, ratio: float) -> Tensor:
    """The same values, with `ratio` of their gradient."""
    return ratio * x + (1 - ratio) * x.detach()


def neighbour_loss(
    features: Tensor,
    xyz: Tensor,
    sample: Tensor,
    count: int = _NEIGHBOURS,
    radius: float = _RADIUS,
) -> Tensor:
    """Mean of 1 - cosine between points (P, C) and their nearest `count` others."""
    x = F.normalize(features.float(), dim=1, eps=1e-8)
    indices, distances = nearest_within(xyz, sample, count + 1, radius)
    itself = indices == torch.arange(len(x), device=x.device).unsqueeze(1)
    near = distances.isfinite() & ~itself
    cosine = (x.unsqueeze(1) * x[indices]).sum(-1)
    return ((1 - cosine) * near).sum() / near.sum().clamp(min=1)


def unseen_loss(
    features: Tensor, valid: Tensor, threshold: float = 0.1, most: int = 1024
) -> Tensor:
    """Mean of 1 - cosine between points without a pixel and the most similar one with.

    Args:
        features: (P, C).
        valid: Points with a pixel, (P,).
        threshold: Least cosine for which a point counts.
        most: Most points of either kind that are compared, evenly spread over the batch.
    """
    x = F.normalize(features.float(), dim=1, eps=1e-8)
    seen, unseen = (_spread(part, most) for part in (x[valid].detach(), x[~valid]))
    if not len(seen) or not len(unseen):
        return x.sum() * 0
    best = (unseen @ seen.T).amax(1)
    counts = best > threshold
    return ((1 - best) * counts).sum() / counts.sum().clamp(min=1)


def _spread(x: Tensor, most: int) -> Tensor:
    return x[torch.linspace(0, len(x) - 1, most).long()] if len(x) > most else x
