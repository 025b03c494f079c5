"""Image retrieval: find the person or place of a query image among a gallery.

Batch: image (B, 3, H, W) normalised float; identity, camera, view (B,) int64; path list[str]; for
evaluation also role (B,) 0 query / 1 gallery and index (B,). Training identities are 0..P-1.
Follows the bag of tricks (arXiv 1903.07071), TransReID, fast-reid and FSRA.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from blocks.errors import SuiteError
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.vision.retrieval.backbones import (
    feature_sizes,
    image_features,
    remove_classifier,
)
from lightning_modules.vision.retrieval.distances import FeatureMetric
from lightning_modules.vision.retrieval.evaluation import RankingProtocol
from lightning_modules.vision.retrieval.expansion import Expansion
from lightning_modules.vision.retrieval.feature_file import FeatureFile
from lightning_modules.vision.retrieval.heads import BNNeckHead, HeadOutput, normalise
from lightning_modules.vision.retrieval.losses import (
    Metric,
    Smoothing,
    cross_view_triplet_loss,
    id_loss,
    mutual_kl_loss,
    pair_views,
    triplet_loss,
)
from lightning_modules.vision.retrieval.metric import RetrievalMetric
from lightning_modules.vision.retrieval.pictures import RankedLists
from lightning_modules.vision.retrieval.reranking import ReRanking
from lightning_modules.workload import Batch, Stage, Workload

_PERCENTAGES = (
    *("mAP", "mINP", "rank1", "rank5", "rank10"),
    *("AP", "recall1", "recall5", "recall10", "recall_top1pct"),
)


@dataclass(frozen=True)
class RetrievalLoss:
    """Parts of the training loss; over parts of the image each is a mean.

    Args:
        id_weight: Weight of the classification of identities.
        triplet_weight: Weight of the triplet loss.
        kl_weight: Weight of the mutual KL loss between two views of an identity (FSRA).
        smoothing: Label smoothing, in 0..1.
        smoothing_form: `uniform` (PyTorch, torchreid), `others` or `adaptive` (fast-reid).
        triplet: `batch_hard`; `weighted` by a softmax of distances; `cross_view`, hardest of the
            other view (FSRA).
        margin: Margin of the triplet loss; `null` = the soft form of TransReID.
        triplet_metric: Distance of features: `euclidean`, `normalized` or `cosine`; `cross_view`
            always takes unit vectors.
    """

    id_weight: float = 1.0
    triplet_weight: float = 1.0
    kl_weight: float = 0.0
    smoothing: float = 0.1
    smoothing_form: Smoothing = "uniform"
    triplet: Literal["batch_hard", "weighted", "cross_view"] = "batch_hard"
    margin: float | None = 0.3
    triplet_metric: Metric = "euclidean"

    def __post_init__(self) -> None:
        if self.triplet == "cross_view" and self.margin is None:
            raise SuiteError(
                expected="a margin for the cross-view triplet loss",
                found="null",
                where="model.init_args.loss.margin",
                cure="set it to 0.3, as FSRA does",
            )


class ImageRetrieval(Workload):
    """Trains descriptors by identity and evaluates them by ranking.

    Args:
        network: Any network with `forward_features`, `forward_head` and `num_features`, such as
            `VisionMamba` or one of timm; a classifier of its own is taken off.
        head: `BNNeckHead` or `FSRAHead`; `null` = the former.
        optimizer: Optimiser and learning-rate rule.
        schedule: Warm-up and cosine.
        loss: Parts of the training loss.
        protocol: How to score, which the data set decides: `cmc_camera` (people; monitors
            val/mAP) or `trapezoid` (University-1652; monitors val/AP).
        distance: `cosine` compares unit vectors, `euclidean` features as they are.
        flip_test: Add the features of the mirrored image.
        expansion: Average descriptors over their neighbours before ranking (AQE).
        rerank: `test` also reports k-reciprocal re-ranking, as `test/rerank_...`.
        fpr: False-positive rates at which `test` reports the true-positive rate.
        pretrained: Weights to start from; positions are resized, a classifier is left out.
        pretrained_weights: `model` or its moving average `model_ema`, where the file holds both.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor = "val/mAP"
    mode = "max"
    units = {f"{again}{name}": "%" for name in _PERCENTAGES for again in ("", "rerank_")}

    def __init__(
        self,
        network: nn.Module,
        head: nn.Module | None = None,
        optimizer: Optimizer = Optimizer(),
        schedule: Schedule = Schedule(),
        loss: RetrievalLoss = RetrievalLoss(),
        protocol: RankingProtocol = "cmc_camera",
        distance: FeatureMetric = "cosine",
        flip_test: bool = False,
        expansion: Expansion | None = None,
        rerank: ReRanking | None = None,
        fpr: tuple[float, ...] = (),
        pretrained: str | None = None,
        pretrained_weights: Literal["model", "model_ema"] = "model",
        compile_network: bool = False,
    ) -> None:
        super().__init__(
            network, optimizer, schedule, pretrained, pretrained_weights, compile_network
        )
        if protocol == "trapezoid":
            self.monitor = "val/AP"  # type: ignore[misc]
        self.loss_config, self.protocol = loss, protocol
        self.distance, self.flip_test = distance, flip_test
        sizes = feature_sizes(network)
        remove_classifier(network)
        chosen: Any = BNNeckHead() if head is None else head
        chosen.attach(*sizes)
        self.head: Any = chosen
        self.val_metric = RetrievalMetric(protocol, distance, (), expansion)
        self.val_raw_metric = RetrievalMetric(protocol, distance, (), expansion)
        self.test_metric = RetrievalMetric(protocol, distance, fpr, expansion, rerank)

    def forward(self, images: Tensor) -> Tensor:
        """Descriptors (B, F) of images (B, 3, H, W), ready to be compared."""
        found = self.head.describe(*image_features(self.network, images))
        if self.flip_test:
            found = found + self.head.describe(*image_features(self.network, images.flip(-1)))
        return normalise(found) if self.distance == "cosine" else found.float().flatten(1)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Descriptors (B, F)."""
        return {"features": self(batch["image"])}

    def configure_callbacks(self) -> list[Callback]:
        """Ranked lists and feature files, unless the trainer has its own or only tries things."""
        if getattr(self.trainer, "fast_dev_run", False):
            return []
        present = {type(callback) for callback in getattr(self.trainer, "callbacks", ())}
        own = (RankedLists(), FeatureFile())
        return [callback for callback in own if type(callback) not in present]

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Makes the classifier over the training identities, once."""
        count = info.get("num_identities")
        if count and self.head.identities is None:
            self._set_identities(count)

    def check_data(self) -> None:
        """The data must be scored as the configuration says.

        Raises:
            SuiteError: It asks for the other protocol, or has no identities to train on.
        """
        asked = self.info.get("protocol")
        if asked in {"cmc_camera", "trapezoid"} and asked != self.protocol:
            raise SuiteError(
                expected=f"the protocol of the data set, {asked}",
                found=self.protocol,
                where="model.init_args.protocol",
                cure=f"set it to {asked}: figures of the two cannot be compared",
            )
        if self._fitting and not self.info.get("num_identities"):
            raise SuiteError(
                expected="training images with identities",
                found="none",
                where=str(self.info.get("root")),
                cure="use a datamodule of retrieval, such as RetrievalDataModule",
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """An evaluation takes the checkpoint's classifier, for its data has other people anyway."""
        trained_on = checkpoint.get("info", {}).get("num_identities")
        if trained_on not in (None, self.head.identities) and not self._fitting:
            self._set_identities(trained_on)
        super().on_load_checkpoint(checkpoint)

    def fresh_entries(self) -> tuple[str, ...]:
        """Classifiers in the file that the network no longer has."""
        config = getattr(self.network, "pretrained_cfg", None) or {}
        return (f"{config.get('classifier') or 'head'}.*", "head.*")

    def on_validation_epoch_end(self) -> None:
        """Ranks what was evaluated."""
        if self._ema is not None and self.val_raw_metric.update_called:
            self._log_ranking("val_raw", self.val_raw_metric)
        self._log_ranking("val", self.val_metric)

    def on_test_epoch_end(self) -> None:
        """Ranks what was evaluated."""
        self._log_ranking("test", self.test_metric)

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        images = batch["image"]
        if stage == "train":
            parts = self._losses(self.head(*image_features(self.network, images)), batch)
            loss = torch.stack(list(parts.values())).sum()
            self.log_loss(loss, stage, len(images))
            if len(parts) > 1:
                shown = {f"train/{name}": value.detach() for name, value in parts.items()}
                self.log_dict(
                    shown, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images)
                )
            return {"loss": loss}
        features = self(images)
        metrics = {"val": self.val_metric, "val_raw": self.val_raw_metric, "test": self.test_metric}
        keys = ("identity", "camera", "role", "index")
        metrics[stage].update(features, *(batch[key] for key in keys))
        return {"features": features}

    def _set_identities(self, count: int) -> None:
        self.head.set_identities(count)
        self.head.to(self.device)

    def _losses(self, found: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Weighted parts of the loss; what has no weight is not computed."""
        config, labels = self.loss_config, batch["identity"]
        parts = {}
        if config.id_weight:
            losses = [
                id_loss(logits, labels, config.smoothing, config.smoothing_form)
                for logits in found.logits.unbind(1)
            ]
            parts["id_loss"] = config.id_weight * torch.stack(losses).mean()
        if config.triplet_weight:
            losses = [self._triplet(features, batch) for features in found.features.unbind(1)]
            parts["triplet_loss"] = config.triplet_weight * torch.stack(losses).mean()
        if config.kl_weight:
            student, teacher = pair_views(labels, batch["view"])
            losses = [mutual_kl_loss(z[student], z[teacher]) for z in found.logits.unbind(1)]
            parts["kl_loss"] = config.kl_weight * torch.stack(losses).mean()
        return parts

    def _triplet(self, features: Tensor, batch: Batch) -> Tensor:
        config, labels = self.loss_config, batch["identity"]
        if config.triplet == "cross_view":
            assert config.margin is not None
            return cross_view_triplet_loss(features, labels, batch["view"], config.margin)
        hard = config.triplet == "batch_hard"
        return triplet_loss(features, labels, config.margin, config.triplet_metric, hard)

    def _log_ranking(self, stage: str, metric: RetrievalMetric) -> None:
        if self.trainer.sanity_checking:
            metric.reset()
            return
        try:
            values = metric.compute()
        except SuiteError as error:
            if not self._partial(stage):
                raise
            why = str(error).splitlines()[1]
            rank_zero_warn(f"This part of the evaluation alone cannot be scored ({why}).")
            names = {"cmc_camera": ("mAP",), "trapezoid": ("AP",)}[self.protocol]
            values = dict.fromkeys(names, float("nan"))
        else:
            rank_zero_info(f"{stage}: {metric.description}")
        metric.reset()
        logged = {f"{stage}/{name}": value for name, value in values.items()}
        # Equal on all processes; the largest of equals is exact, a mean need not be.
        together: dict[str, Any] = {"sync_dist": True, "reduce_fx": "max"}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=1, **together)

    def _partial(self, stage: str) -> bool:
        """Whether the trainer leaves out a part of the evaluation."""
        trainer = self.trainer
        limit = trainer.limit_test_batches if stage == "test" else trainer.limit_val_batches
        # A share of 1.0 is everything, a count of 1 is one batch.
        return not (isinstance(limit, float) and limit == 1.0)
