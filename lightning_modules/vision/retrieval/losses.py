"""Losses of image retrieval: identity classification, triplets mined in the batch, mutual KL.

Features (B, E), logits (B, P) over identities, labels (B,). Distances and softmaxes are float32
under every precision: in float16 they overflow. Sources: KaiyangZhou/deep-person-reid, TransReID,
fast-reid and Dmmm1997/FSRA, whose numbers the tests hold.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.errors import SuiteError

Smoothing = Literal["uniform", "others", "adaptive"]
Metric = Literal["euclidean", "normalized", "cosine"]


def id_loss(
    logits: Tensor, labels: Tensor, smoothing: float = 0.1, form: Smoothing = "uniform"
) -> Tensor:
    """Cross-entropy over identities with smoothed targets.

    Args:
        logits: (B, P).
        labels: (B,) in 0..P-1.
        smoothing: Mass taken from the true identity, in 0..1; for `adaptive` the share of its
            predicted probability that is taken.
        form: `uniform` spreads it over all identities (PyTorch, torchreid), `others` over all but
            the true one (fast-reid), `adaptive` takes more where the prediction is sure (fast-reid
            with a negative epsilon).
    """
    with _full_precision(logits):
        logits = logits.float()
        if form == "uniform":
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        log_p = logits.log_softmax(dim=1)
        true = log_p.gather(1, labels[:, None]).squeeze(1)
        mass = smoothing * true.detach().exp() if form == "adaptive" else smoothing
        others = (log_p.sum(dim=1) - true) / max(logits.shape[1] - 1, 1)
        return -((1 - mass) * true + mass * others).mean()


def triplet_loss(
    features: Tensor,
    labels: Tensor,
    margin: float | None = 0.3,
    metric: Metric = "euclidean",
    hard_mining: bool = True,
) -> Tensor:
    """Triplet loss over all anchors of the batch.

    Args:
        features: (B, E).
        labels: (B,) identities; each needs others in the batch to be compared with.
        margin: By how much a negative must be farther than a positive; `None` = the soft form
            log(1 + exp(d_ap - d_an)).
        metric: Euclidean distance of the features as they are, or of unit vectors, or twice the
            cosine distance, 2 - 2 cos.
        hard_mining: Farthest positive and nearest negative; else means weighted by a softmax of
            the distances, which is meant for `normalized` or `cosine`: as in fast-reid, the weights
            of negatives vanish where all are farther than about 14.
    """
    same = labels[:, None] == labels[None, :]
    with _full_precision(features):
        distances = _distances(features, metric)
        return _triplets(distances, same, ~same, margin, hard_mining)


def cross_view_triplet_loss(
    features: Tensor, labels: Tensor, views: Tensor, margin: float = 0.3
) -> Tensor:
    """Batch-hard triplets whose positives and negatives come from another view (FSRA).

    Args:
        features: (B, E); compared as unit vectors.
        labels: (B,) identities.
        views: (B,) view of each image, such as satellite and drone.
        margin: By how much a negative must be farther than a positive.

    Raises:
        SuiteError: The batch shows one view only.
    """
    other_view = views[:, None] != views[None, :]
    if not bool(other_view.any()):
        raise SuiteError(
            expected="images of two views in each training batch",
            found=f"view {views[0].item() if len(views) else 'none'} only",
            where="loss.triplet: cross_view",
            cure="let the datamodule draw both views of an identity, or use triplet: batch_hard",
        )
    same = labels[:, None] == labels[None, :]
    with _full_precision(features):
        distances = _distances(features, "normalized", least=1e-6)
        return _triplets(distances, same & other_view, ~same & other_view, margin, True)


def mutual_kl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of one view's predictions from another's, which serve as fixed targets.

    Args:
        student: Logits (B, P) of one view (in FSRA the satellite's).
        teacher: Logits (B, P) of the other view, row by row of the same identities.
    """
    with _full_precision(student):
        target = teacher.detach().float().softmax(dim=1)
        log_p = student.float().log_softmax(dim=1)
        return F.kl_div(log_p, target, reduction="batchmean")


def pair_views(labels: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a batch that show the same identity in the two views.

    Args:
        labels: (B,) identities.
        views: (B,) two different view numbers; the smaller one is the student's.

    Returns:
        Rows of the first view and rows of the second, of equal length.

    Raises:
        SuiteError: More or fewer than two views, or identities that do not pair up.
    """
    present = sorted(set(views.tolist()))
    sides = [(views == view).nonzero().squeeze(1) for view in present]
    sides = [rows[labels[rows].argsort(stable=True)] for rows in sides]
    if len(sides) != 2 or not torch.equal(*(labels[rows] for rows in sides)):
        raise SuiteError(
            expected="as many images of each identity in one view as in the other",
            found=f"views {present} whose identities do not pair up",
            where="loss.kl_weight",
            cure="let the datamodule draw pairs of views, or set loss.kl_weight: 0",
        )
    return sides[0], sides[1]


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _distances(features: Tensor, metric: Metric, least: float = 1e-12) -> Tensor:
    x = features.float()
    if metric != "euclidean":
        x = F.normalize(x, dim=1)
    if metric == "cosine":
        return 2 - 2 * x @ x.T
    squares = x.square().sum(dim=1)
    # The root has no gradient at 0, where every anchor meets itself.
    return (squares[:, None] + squares[None, :] - 2 * x @ x.T).clamp(min=least).sqrt()


def _triplets(
    distances: Tensor, positive: Tensor, negative: Tensor, margin: float | None, hard: bool
) -> Tensor:
    """Mean over the anchors that have both a positive and a negative."""
    anchors = positive.any(dim=1) & negative.any(dim=1)
    distances, positive, negative = distances[anchors], positive[anchors], negative[anchors]
    if len(distances) == 0:
        return distances.sum()
    if hard:
        far = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
        near = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    else:
        far = _weighted(distances, distances * positive, positive)
        near = _weighted(distances, -distances * negative, negative)
    gap = far - near
    return (F.softplus(gap) if margin is None else F.relu(gap + margin)).mean()


def _weighted(distances: Tensor, scores: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen distances in each row, weighted by the softmax of the scores."""
    # fast-reid shifts by the largest entry, 0 for negatives, and adds 1e-6: kept for parity.
    weights = (scores - scores.amax(dim=1, keepdim=True)).exp() * chosen
    return (distances * weights).sum(dim=1) / (weights.sum(dim=1) + 1e-6)
