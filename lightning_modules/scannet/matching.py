"""Which query answers for which instance: costs, the sparse rule of OneFormer3D, the Hungarian one.

    cost = 0.5 (-probability of the class) + 1.0 BCE of the mask + 1.0 (1 - Dice of the mask)

Everything in float32. Shapes, one sample: Q queries, G instances, N elements of a mask.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.scannet.networks.query_decoder import Decoded
from lightning_modules.scannet.targets import Targets

Matcher = Literal["sparse", "hungarian"]
# A query whose superpoint lies outside of an instance never answers for it (sparse rule).
_FORBIDDEN = 1e8


def match(
    decoded: Decoded, targets: Targets, queries: Tensor | None, rule: Matcher = "sparse"
) -> tuple[Tensor, Tensor]:
    """Pairs of queries and instances.

    Args:
        decoded: Output of the decoder.
        targets: Ground truth of the sample.
        queries: Superpoint of each query, (Q,); all superpoints in order if left out.
        rule: `sparse`: the best query within each instance, so that one query may answer for
            several; `hungarian`: one to one at the least total cost.

    Returns:
        Queries and their instances, (matches,) each, sorted by query.
    """
    cost = matching_cost(decoded, targets)
    if rule == "hungarian":
        return hungarian_match(cost)
    inside = targets.superpoint_masks if queries is None else targets.superpoint_masks[:, queries]
    return sparse_match(cost, inside.T)


@torch.no_grad()
def matching_cost(
    decoded: Decoded,
    targets: Targets,
    class_weight: float = 0.5,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
) -> Tensor:
    """Costs (Q, G) of every query for every instance."""
    logits = decoded.masks.float()
    truth = targets.masks(decoded.over_points).float()
    cost = -class_weight * decoded.classes.float().softmax(1)[:, targets.labels]
    return (
        cost + bce_weight * pairwise_bce(logits, truth) + dice_weight * pairwise_dice(logits, truth)
    )


def pairwise_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (Q, N) against masks (G, N), as (Q, G)."""
    present, absent = F.softplus(-logits), F.softplus(logits)
    return (present @ truth.T + absent @ (1 - truth).T) / logits.shape[1]


def pairwise_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice distance of logits (Q, N) against masks (G, N), as (Q, G)."""
    p = logits.sigmoid()
    return 1 - (2 * p @ truth.T + 1) / (p.sum(1, keepdim=True) + truth.sum(1) + 1)


def sparse_match(cost: Tensor, inside: Tensor, topk: int = 1) -> tuple[Tensor, Tensor]:
    """The `topk` cheapest queries within each instance; none where the next one costs the same.

    Args:
        cost: (Q, G).
        inside: Whether the superpoint of a query belongs to an instance, (Q, G).
        topk: Queries an instance may have.
    """
    cost = torch.where(inside, cost, _FORBIDDEN)
    # With few queries there is no next one: forbidden ones stand in for it.
    padded = F.pad(cost, (0, 0, 0, max(topk + 1 - len(cost), 0)), value=_FORBIDDEN)
    limit = padded.topk(topk + 1, dim=0, largest=False).values[-1]
    query, instance = (cost < limit).nonzero(as_tuple=True)
    return query, instance


def hungarian_match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """One to one at the least total cost (Q, G); min(Q, G) pairs."""
    from scipy.optimize import linear_sum_assignment

    query, instance = linear_sum_assignment(cost.cpu().numpy())
    return tuple(torch.as_tensor(found, device=cost.device) for found in (query, instance))  # type: ignore[return-value]
