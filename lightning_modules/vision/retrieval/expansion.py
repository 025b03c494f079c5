"""Query expansion (AQE, Chum et al. 2007; weighted as in arXiv 1711.02512 and fast-reid)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.vision.retrieval.distances import row_blocks


@dataclass(frozen=True)
class Expansion:
    """Settings of alpha query expansion.

    Args:
        neighbours: Nearest images, itself included, whose features are averaged.
        alpha: Power of the cosine similarity that weights them.
        rounds: How often.
    """

    neighbours: int = 5
    alpha: float = 3.0
    rounds: int = 1


def expand(query: Tensor, gallery: Tensor, settings: Expansion) -> tuple[Tensor, Tensor]:
    """Replaces each feature by the weighted mean over its neighbours in queries and gallery.

    Args:
        query: (Q, F) float32.
        gallery: (G, F).
        settings: How many neighbours, and how they are weighted.

    Returns:
        The new features of both.
    """
    features = torch.cat((query, gallery))
    near = min(settings.neighbours, len(features))
    for _ in range(settings.rounds):
        unit = F.normalize(features, dim=1)
        mean = torch.empty_like(features)
        for start, stop in row_blocks((len(features), len(features))):
            similarity, index = (unit[start:stop] @ unit.T).topk(near, dim=1)
            # A neighbour that looks the other way is none; fractional powers need the bound too.
            weight = similarity.clamp(min=0).pow(settings.alpha)
            mean[start:stop] = torch.einsum("bk,bkf->bf", weight, features[index]) / near
        features = mean
    return features[: len(query)], features[len(query) :]
