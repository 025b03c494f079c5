"""From the decoder's logits to instances: best queries, matrix NMS, thresholds.

Follows filaPro/oneformer3d and xuxw98/ESAM; matrix NMS is that of SOLOv2 (arXiv 2003.10152).
Shapes, one sample: Q queries, M instances, P points.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.scannet.specks import without_specks


@dataclass(frozen=True)
class Instances:
    """What was found in a sample, best first.

    Args:
        masks: (M, P) bool.
        labels: (M,), 0..197 of ScanNet200's things in official order; 0 if class-agnostic.
        scores: (M,), in 0..1.
    """

    masks: Tensor
    labels: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Inference:
    """How instances are read from the decoder's last output.

    Args:
        topk: Most instances; the published runs take 100 of a frame, 600 of a scene.
        nms: Kernel of matrix NMS, or `none`.
        sigma: Of the Gaussian kernel.
        normalize_by_mask: Multiply scores by the mean probability within the mask.
        mask_threshold: Least probability of a point in a mask, in 0..1.
        score_threshold: Instances must score more than this, in 0..1.
        min_points: Instances must have more points than this.
        min_component: Drop parts of a mask with fewer points, which touch the rest nowhere; 0
            keeps them, as benchmarks do.
    """

    topk: int = 100
    nms: Literal["linear", "gaussian", "none"] = "linear"
    sigma: float = 2.0
    normalize_by_mask: bool = True
    mask_threshold: float = 0.4
    score_threshold: float = 0.0
    min_points: int = 100
    min_component: int = 0


def read_instances(
    classes: Tensor,
    masks: Tensor,
    inference: Inference,
    xyz: Tensor | None = None,
    superpoint: Tensor | None = None,
) -> Instances:
    """Instances of one sample.

    Args:
        classes: Logits (Q, classes + 1), "no object" last.
        masks: Logits over points (Q, P), or over superpoints (Q, S).
        inference: Settings.
        xyz: Places of the points in metres, (P, 3); only needed to remove specks.
        superpoint: Superpoint of each point, (P,), where masks are over superpoints.
    """
    with torch.autocast(masks.device.type, enabled=False):
        return _read(classes.float(), masks, inference, xyz, superpoint)


def _read(
    classes: Tensor,
    masks: Tensor,
    inference: Inference,
    xyz: Tensor | None,
    superpoint: Tensor | None,
) -> Instances:
    scores, labels, chosen = _best(classes, inference.topk)
    logits = masks[chosen].float()
    probability = logits.sigmoid()
    if inference.normalize_by_mask:
        positive = (logits > 0).float()
        scores = scores * (probability * positive).sum(1) / (positive.sum(1) + 1e-6)
    if inference.nms != "none":
        scores, order = matrix_nms(probability, labels, scores, inference.nms, inference.sigma)
    else:
        scores, order = scores.sort(descending=True)
    labels, found = labels[order], probability[order] > inference.mask_threshold
    if superpoint is not None:
        found = found[:, superpoint]
    if inference.min_component and xyz is not None:
        found = without_specks(found, xyz, inference.min_component)
    keep = (scores > inference.score_threshold) & (found.sum(1) > inference.min_points)
    return Instances(found[keep], labels[keep], scores[keep])


def matrix_nms(
    masks: Tensor,
    labels: Tensor,
    scores: Tensor,
    kernel: Literal["linear", "gaussian"] = "linear",
    sigma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Lowers the scores of masks that overlap better ones of their class.

    Args:
        masks: Soft masks, (M, N) in 0..1; the sum is the area.
        labels: Classes, (M,).
        scores: (M,).
        kernel: How an overlap lowers a score.
        sigma: Of the Gaussian kernel.

    Returns:
        New scores, best first, and the order (M,) that sorts by them.
    """
    if not len(scores):
        return scores, torch.zeros_like(labels)
    first = scores.argsort(descending=True, stable=True)
    masks, labels, scores = masks[first], labels[first], scores[first]
    overlap, area = masks @ masks.T, masks.sum(1)
    iou = overlap / (area + area.unsqueeze(1) - overlap).clamp(min=1e-8)
    iou = (iou * (labels == labels.unsqueeze(1))).triu(1)
    # How far the better mask is itself a duplicate of a still better one.
    own = iou.amax(0).unsqueeze(1)
    if kernel == "gaussian":
        decay = (-sigma * (iou.square() - own.square())).exp()
    else:
        decay = (1 - iou) / (1 - own).clamp(min=1e-8)
    scores = scores * decay.amin(0)
    again = scores.argsort(descending=True, stable=True)
    return scores[again], first[again]


def _best(classes: Tensor, topk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, classes and queries (M,) of the best pairs of query and class."""
    probability = classes.softmax(1)[:, :-1]
    count = min(topk, probability.numel())
    scores, place = probability.flatten().topk(count)
    return scores, place % probability.shape[1], place // probability.shape[1]
