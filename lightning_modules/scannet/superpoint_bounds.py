"""What superpoints alone allow: the best masks made of them, and the least worth beating.

An average precision means little without both.
"""

import torch
from torch import Tensor

from lightning_modules.scannet.instances import Instances
from lightning_modules.scannet.targets import make_targets


def oracle_instances(
    instance: Tensor, semantic: Tensor, superpoint: Tensor, agnostic: bool
) -> Instances:
    """The truth, as well as superpoints can say it: each belongs to what covers more than half.

    Args:
        instance: (P,) instance of each point, -1 for none.
        semantic: (P,) its class, 0..200.
        superpoint: (P,) its superpoint, from 0 in this sample.
        agnostic: Give all instances class 0.
    """
    count = int(superpoint.max()) + 1 if len(superpoint) else 0
    targets = make_targets(instance, semantic, superpoint, count, agnostic=agnostic)
    masks = targets.superpoint_masks[:, superpoint]
    return Instances(masks, targets.labels, torch.ones(len(masks), device=masks.device))


def superpoint_instances(superpoint: Tensor) -> Instances:
    """One mask for each superpoint, larger ones first: class-agnostic, without learning.

    Args:
        superpoint: (P,) superpoint of each point, from 0 in this sample.
    """
    sizes = torch.bincount(superpoint)
    order = sizes.argsort(descending=True, stable=True)
    masks = superpoint.unsqueeze(0) == order.unsqueeze(1)
    return Instances(masks, torch.zeros_like(order), sizes[order] / max(len(superpoint), 1))
