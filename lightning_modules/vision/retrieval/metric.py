"""Collects the features of an evaluation from all processes and ranks them once, exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from blocks.errors import SuiteError
from lightning_modules.vision.retrieval.distances import FeatureMetric
from lightning_modules.vision.retrieval.evaluation import RankingProtocol, Samples, evaluate
from lightning_modules.vision.retrieval.expansion import Expansion, expand
from lightning_modules.vision.retrieval.reranking import ReRanked, ReRanking

QUERY = 0
_STATES = ("features", "identity", "camera", "role", "index")


@dataclass(frozen=True)
class Collected:
    """Queries and gallery of an evaluation, in the order of the data set.

    Args:
        query: Queries.
        gallery: Gallery.
        query_index: (Q,) their places in the data set.
        gallery_index: (G,) likewise.
    """

    query: Samples
    gallery: Samples
    query_index: Tensor
    gallery_index: Tensor


class RetrievalMetric(Metric):
    """Percentages of a ranking protocol over everything that was evaluated.

    Features wait on the CPU. Samples are known by their index, so those that several processes saw
    count once; the first process ranks, and tells the others.

    Args:
        protocol: How to score.
        distance: `cosine` or `euclidean`.
        fpr: False-positive rates at which to report the true-positive rate (`tpr_at_fpr_...`).
        expansion: Average features over their neighbours first.
        rerank: Also score re-ranked distances, under names that begin with `rerank_`.
    """

    full_state_update = False

    def __init__(
        self,
        protocol: RankingProtocol = "cmc_camera",
        distance: FeatureMetric = "cosine",
        fpr: Sequence[float] = (),
        expansion: Expansion | None = None,
        rerank: ReRanking | None = None,
    ) -> None:
        super().__init__(dist_sync_fn=_gather_on_cpu)
        self.protocol, self.distance, self.fpr = protocol, distance, tuple(fpr)
        self.expansion, self.rerank = expansion, rerank
        self.collected: Collected | None = None
        self.description = ""
        for name in _STATES:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self, features: Tensor, identity: Tensor, camera: Tensor, role: Tensor, index: Tensor
    ) -> None:
        """Adds a batch.

        Args:
            features: (B, F).
            identity: (B,), -1 for junk.
            camera: (B,).
            role: (B,) 0 for a query, 1 for a gallery image.
            index: (B,) place in the data set, the same on every process.
        """
        given = (features.detach().float(), identity, camera, role, index)
        for name, value in zip(_STATES, given, strict=True):
            getattr(self, name).append(value.cpu())

    def compute(self) -> dict[str, float]:
        """Percentages by name.

        Raises:
            SuiteError: No query can be answered.
        """
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not several or torch.distributed.get_world_size() == 1:
            return self._rank()
        # A list of one, which is how objects are broadcast; an error must reach everybody, too.
        told: list[Any] = [None]
        if torch.distributed.get_rank() == 0:
            try:
                told = [self._rank()]
            except SuiteError as error:
                told = [str(error)]
        torch.distributed.broadcast_object_list(told)
        if isinstance(told[0], str):
            raise SuiteError(told[0])
        values: dict[str, float] = told[0]
        return values

    def _rank(self) -> dict[str, float]:
        found = self._collect()
        query, gallery = found.query, found.gallery
        if self.expansion is not None and len(query) and len(gallery):
            features = expand(query.features, gallery.features, self.expansion)
            query = Samples(features[0], query.identity, query.camera)
            gallery = Samples(features[1], gallery.identity, gallery.camera)
        result = evaluate(query, gallery, self.protocol, self.distance, fpr=self.fpr)
        self.description = result.protocol
        values = dict(result.values)
        for rate, share in result.tpr_at_fpr.items():
            values[f"tpr_at_fpr_{rate:g}"] = 100 * share
        if self.rerank is not None:
            again = ReRanked.of_features(
                query.features, gallery.features, self.distance, self.rerank
            )
            better = evaluate(query, gallery, self.protocol, distances=again).values
            values |= {f"rerank_{name}": value for name, value in better.items()}
        return values

    def _collect(self) -> Collected:
        gathered = {name: dim_zero_cat(getattr(self, name)) for name in _STATES}
        index, first = np.unique(gathered["index"].numpy(), return_index=True)
        kept = {name: values[torch.from_numpy(first)] for name, values in gathered.items()}
        everyone = Samples(kept["features"], kept["identity"], kept["camera"])
        is_query = kept["role"] == QUERY
        # Junk is nobody's match and nobody's mistake, under either protocol.
        in_gallery = ~is_query & (kept["identity"] >= 0)
        places = torch.from_numpy(index)
        self.collected = Collected(
            everyone[is_query], everyone[in_gallery], places[is_query], places[in_gallery]
        )
        return self.collected


def _gather_on_cpu(value: Tensor, group: Any = None) -> list[Tensor]:
    """Gathers tensors of different lengths, by way of the GPU where NCCL knows nothing else."""
    on_gpu = torch.distributed.get_backend(group) == "nccl"
    parts = gather_all_tensors(value.cuda() if on_gpu else value, group)
    return [part.cpu() for part in parts]
