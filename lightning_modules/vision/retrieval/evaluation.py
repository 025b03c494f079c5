"""The two ways retrieval is scored. They give different numbers and are never mixed.

`cmc_camera` (person re-identification, arXiv 1502.05988 as torchreid, TransReID and fast-reid have
it): gallery images of the query's identity and camera are removed; queries without a right image
left do not count; AP is the mean precision at the right images. `trapezoid` (University-1652, the
first Market-1501 code): nothing is removed, AP is the area under the precision-recall curve by
trapezoids, and queries without a right image count as 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.vision.retrieval.distances import (
    Distances,
    FeatureDistances,
    FeatureMetric,
)
from lightning_modules.vision.retrieval.ranking import Array, IdentityIndex, each_query
from lightning_modules.vision.retrieval.verification import tpr_at_fpr

RankingProtocol = Literal["cmc_camera", "trapezoid"]


@dataclass(frozen=True)
class Samples:
    """Queries, or a gallery.

    Args:
        features: (N, F) float32 on the CPU.
        identity: (N,) int64; -1 = junk, which is left out of a gallery.
        camera: (N,) int64.
    """

    features: Tensor
    identity: Tensor
    camera: Tensor

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, rows: Tensor) -> "Samples":
        """The chosen samples."""
        return Samples(self.features[rows], self.identity[rows], self.camera[rows])


@dataclass(frozen=True)
class RetrievalResult:
    """What came out.

    Args:
        protocol: How it was scored, in words.
        values: Percentages by name: mAP, mINP, rank1, ... or AP, recall1, ...
        cmc: (ranks,) share of queries with a right image among the first k, in 0..1.
        average_precision: (Q,) in 0..1; NaN for queries without a right image.
        inverse_negative_penalty: (Q,) right images / rank of the last of them; NaN likewise.
        tpr_at_fpr: fast-reid's true-positive rate by false-positive rate, both in 0..1, if asked.
    """

    protocol: str
    values: dict[str, float]
    cmc: Array
    average_precision: Array
    inverse_negative_penalty: Array
    tpr_at_fpr: dict[float, float] = field(default_factory=dict)


def evaluate(
    query: Samples,
    gallery: Samples,
    protocol: RankingProtocol,
    metric: FeatureMetric = "cosine",
    distances: Distances | None = None,
    max_rank: int = 50,
    fpr: Sequence[float] = (),
) -> RetrievalResult:
    """Ranks the gallery for every query.

    Args:
        query: What is looked for.
        gallery: Where.
        protocol: How to score.
        metric: Distance of features.
        distances: (Q, G) to use instead of the features', such as re-ranked ones.
        max_rank: Length of `cmc`, at most the gallery's.
        fpr: False-positive rates at which to report the true-positive rate; it takes as long
            again as the ranking.

    Raises:
        SuiteError: There is nothing to rank, or no query has a right image in the gallery.
    """
    if len(query) == 0 or len(gallery) == 0:
        raise SuiteError(
            expected="at least one query and one gallery image",
            found=f"{len(query)} queries and {len(gallery)} gallery images",
            where=f"retrieval evaluation, {protocol}",
            cure="check the data set's query and gallery folders, and trainer.limit_val_batches",
        )
    if distances is None:
        if bool((gallery.identity < 0).any()):
            gallery = gallery[gallery.identity >= 0]
        distances = FeatureDistances(query.features, gallery.features, metric)
    by_camera = protocol == "cmc_camera"
    gallery_camera = gallery.camera.numpy() if by_camera else None
    index = IdentityIndex(gallery.identity.numpy(), gallery_camera)
    answers = index.of_queries(query.identity.numpy(), query.camera.numpy())

    true_pairs: list[Array] = []
    first = np.full(len(query), np.iinfo(np.int64).max)
    precision = np.full(len(query), np.nan)
    penalty = np.full(len(query), np.nan)
    for i, (row, ranks) in enumerate(each_query(distances, answers)):
        if len(ranks) == 0:
            continue
        first[i] = ranks[0]
        precision[i] = (average_precision if by_camera else trapezoid_precision)(ranks)
        penalty[i] = len(ranks) / ranks[-1]
        if fpr:
            true_pairs.append(row[answers[i].positives])
    valid = ~np.isnan(precision)
    if not valid.any():
        raise _nothing_to_find(query, gallery, protocol)
    length = min(max_rank, len(gallery))
    found = first[valid] if by_camera else first
    cmc = (found[:, None] <= np.arange(1, length + 1)).mean(axis=0)
    if by_camera:
        values = _camera_values(cmc, precision[valid], penalty[valid])
    else:
        values = _trapezoid_values(first, np.nan_to_num(precision), len(gallery))
    rates = tpr_at_fpr(distances, answers, np.concatenate(true_pairs), fpr) if fpr else {}
    return RetrievalResult(
        protocol=_describe(protocol, query, gallery, int(valid.sum())),
        values=values,
        cmc=cmc,
        average_precision=precision,
        inverse_negative_penalty=penalty,
        tpr_at_fpr=rates,
    )


def average_precision(ranks: Array) -> float:
    """Mean precision at the right images, in 0..1.

    Args:
        ranks: Their ranks, ascending from 1.
    """
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())


def trapezoid_precision(ranks: Array) -> float:
    """Area under the precision-recall curve by trapezoids, in 0..1.

    Source: layumi/University1652-Baseline.

    Args:
        ranks: Ranks of the right images, ascending from 1.
    """
    count = np.arange(1, len(ranks) + 1)
    # Precision just before each right image; at rank 1 nothing was wrong yet.
    before = np.where(ranks == 1, 1.0, (count - 1) / np.maximum(ranks - 1, 1))
    return float(((count / ranks + before) / 2).mean())


def _camera_values(cmc: Array, precision: Array, penalty: Array) -> dict[str, float]:
    at = {f"rank{k}": cmc[min(k, len(cmc)) - 1] for k in (1, 5, 10)}
    shares = {"mAP": precision.mean(), "mINP": penalty.mean(), **at}
    return {name: 100 * float(value) for name, value in shares.items()}


def _trapezoid_values(first: Array, precision: Array, gallery: int) -> dict[str, float]:
    at = {f"recall{k}": (first <= k).mean() for k in (1, 5, 10)}
    # Upstream looks at the 0-based place round(G / 100), and Python rounds half to even.
    at["recall_top1pct"] = (first <= round(0.01 * gallery) + 1).mean()
    return {name: 100 * float(value) for name, value in {**at, "AP": precision.mean()}.items()}


def _describe(protocol: RankingProtocol, query: Samples, gallery: Samples, valid: int) -> str:
    rule = {
        "cmc_camera": "cmc_camera (same identity and camera removed, non-interpolated AP)",
        "trapezoid": "trapezoid (University-1652: nothing removed, trapezoid AP)",
    }[protocol]
    return f"{rule}: {valid} of {len(query)} queries answerable, {len(gallery)} gallery images"


def _nothing_to_find(query: Samples, gallery: Samples, protocol: RankingProtocol) -> SuiteError:
    shared = torch.isin(query.identity, gallery.identity)
    where = f"retrieval evaluation, {protocol}"
    if not bool(shared.any()):
        return SuiteError(
            expected="queries whose identity is in the gallery",
            found=f"none: query identities {_some(query.identity)}, "
            f"gallery identities {_some(gallery.identity)}",
            where=where,
            cure="give query and gallery images of a person or place the same identity",
        )
    return SuiteError(
        expected="gallery images of the query's identity from another camera",
        found=f"only images of the query's own camera (cameras {_some(gallery.camera)})",
        where=where,
        cure="data without cameras needs different camera numbers for query and gallery: the "
        "rule removes what query and gallery share",
    )


def _some(numbers: Tensor) -> str:
    found = sorted(set(numbers.tolist()))
    return ", ".join(map(str, found[:5])) + (f", ... ({len(found)})" if len(found) > 5 else "")
