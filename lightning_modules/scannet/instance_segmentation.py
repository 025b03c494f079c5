"""Instance segmentation of RGB-D frames and scenes, from points and, with BiFusion, the image.

Batch: points of all samples lie one after the other, P of them, and superpoints are numbered
through, S of them. grid_xyz (P, 3) metres, color (P, 3) normalised, sample, superpoint, semantic,
instance (P,) int64; with images also image (B, 3, h, w), uv (P, 2), uv_valid (P,), image_size
(B, 2), pose (B, 4, 4), original_xyz (P, 3); frame list[str].

Recipe and defaults: xuxw98/ESAM on single views, and our repair of Xin200203/3D_Reconstruction.
"""

import math
import random
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from blocks.errors import SuiteError
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.scannet.consistency import Consistency
from lightning_modules.scannet.criterion import InstanceLoss
from lightning_modules.scannet.fusion_schedule import StageWeights, gate_warmup
from lightning_modules.scannet.instance_ap import thing_groups
from lightning_modules.scannet.instance_files import InstanceFiles
from lightning_modules.scannet.instance_pictures import InstancePictures
from lightning_modules.scannet.instance_scores import InstanceScores
from lightning_modules.scannet.instances import Inference, Instances, read_instances
from lightning_modules.scannet.networks.bifusion import BiFusion, Fused, View
from lightning_modules.scannet.networks.segmenter import (
    InstanceSegmenter,
    Segmented,
    points_and_superpoints,
)
from lightning_modules.scannet.score_table import ClassScoreTable
from lightning_modules.scannet.targets import STUFF, Targets, make_targets
from lightning_modules.workload import Batch, Stage, Workload

RECIPE = Optimizer(lr=1e-4, weight_decay=0.05, lr_scale_batch=None, decay_everything=True)
DECAY = Schedule(shape="poly", interval="epoch", warmup_epochs=0, min_lr=0.0)
_LOSS, _CONSISTENCY = InstanceLoss(), Consistency()
_STAGES, _INFERENCE = StageWeights(), Inference()


class InstanceSegmentation(Workload):
    """Trains and evaluates a segmenter of point clouds.

    Args:
        network: An `InstanceSegmenter`, with or without fusion.
        agnostic: Find objects without naming them; the decoder then has one class.
        optimizer: Optimiser and learning-rate rule; the published one decays every parameter.
        schedule: Decay of the learning rate; the published one is polynomial, per epoch.
        loss: Losses of instances and semantics.
        consistency: Losses between both branches of a fusion.
        stages: Weights of the losses that change as a fusion trains.
        inference: How instances are read from the decoder.
        query_fraction: Least share of a sample's superpoints that become queries in training, in
            (0, 1]; all do in evaluation.
        pretrained: Weights to start from: a file of ours or safetensors. Parts of others' networks
            come by the callback `PartialLoad`.
        pretrained_weights: `model` or its moving average `model_ema`, where the file holds both.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor = "val/ap50"
    mode = "max"
    units = InstanceScores.UNITS

    def __init__(
        self,
        network: nn.Module,
        agnostic: bool = False,
        optimizer: Optimizer = RECIPE,
        schedule: Schedule = DECAY,
        loss: InstanceLoss = _LOSS,
        consistency: Consistency = _CONSISTENCY,
        stages: StageWeights = _STAGES,
        inference: Inference = _INFERENCE,
        query_fraction: float = 0.5,
        pretrained: str | None = None,
        pretrained_weights: Literal["model", "model_ema"] = "model",
        compile_network: bool = False,
    ) -> None:
        super().__init__(
            network, optimizer, schedule, pretrained, pretrained_weights, compile_network
        )
        self.agnostic, self.loss_terms, self.consistency = agnostic, loss, consistency
        self.stages, self.inference, self.query_fraction = stages, inference, query_fraction
        decoder = self.segmenter.decoder
        self.scores = nn.ModuleDict(
            {
                stage: InstanceScores(agnostic, decoder.num_classes, decoder.num_semantic)
                for stage in ("val", "val_raw", "test")
            }
        )

    @property
    def segmenter(self) -> InstanceSegmenter:
        """The network.

        Raises:
            SuiteError: It is another one.
        """
        if not isinstance(self.network, InstanceSegmenter):
            raise SuiteError(
                expected="an InstanceSegmenter",
                found=type(self.network).__name__,
                where="model.init_args.network",
                cure="put the backbone into an InstanceSegmenter, with its decoder",
            )
        return self.network

    @property
    def fusion(self) -> BiFusion | None:
        """Its fusion, if it has one."""
        found = self.segmenter.fusion
        return found if isinstance(found, BiFusion) else None

    @property
    def stuff(self) -> tuple[int, ...]:
        """Classes without instances."""
        names, things = self.info.get("class_names"), self.info.get("things")
        if not names or not things:
            return STUFF
        return tuple(place for place in range(len(names)) if place not in things)

    def forward(self, batch: Batch, queries: Sequence[Tensor | None] | None = None) -> Segmented:
        """What the network says about a batch."""
        view = None
        if self.fusion is not None and "image" in batch:
            names = ("image", "uv", "uv_valid", "image_size", "original_xyz", "pose")
            view = View(*(batch[name] for name in names))
        segmented: Segmented = self.network(
            batch["grid_xyz"], batch["color"], batch["sample"], batch["superpoint"], view, queries
        )
        return segmented

    def instances(self, segmented: Segmented, batch: Batch) -> list[Instances]:
        """Instances of every sample of a batch."""
        found = []
        for decoded, (here, superpoint) in zip(
            segmented.decoded, self._samples(batch), strict=True
        ):
            last, xyz = decoded[-1], batch["xyz"][here]
            over_superpoints = None if last.over_points else superpoint
            found.append(
                read_instances(last.classes, last.masks, self.inference, xyz, over_superpoints)
            )
        return found

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Instances per sample, and the image's share of every point where there is a fusion."""
        segmented = self(batch)
        return {"instances": self.instances(segmented, batch), "share": _share(segmented.fused)}

    def configure_callbacks(self) -> list[Callback]:
        """Tables, pictures and files, unless the trainer has its own or only tries things."""
        if getattr(self.trainer, "fast_dev_run", False):
            return []
        present = {type(callback) for callback in getattr(self.trainer, "callbacks", ())}
        predicts = self.trainer.state.fn == TrainerFn.PREDICTING
        own = (InstanceFiles(),) if predicts else (ClassScoreTable(), InstancePictures())
        return [callback for callback in own if type(callback) not in present]

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Learns which classes are frequent and which have no instances."""
        groups = thing_groups(info.get("class_groups") or (), self.stuff)
        for stage in ("val", "val_raw", "test"):
            self._scores(stage).describe(groups, self.stuff)

    def check_data(self) -> None:
        """The decoder's classes must be those of the task and of the data.

        Raises:
            SuiteError: They differ, or a network that fuses gets no images.
        """
        decoder = self.segmenter.decoder
        names = self.info.get("class_names") or ()
        semantic = len(names) or decoder.num_semantic
        wanted = 1 if self.agnostic else semantic - len(self.stuff)
        for name, expected, found in (
            ("num_classes", wanted, decoder.num_classes),
            ("num_semantic", semantic, decoder.num_semantic),
        ):
            if expected != found:
                raise SuiteError(
                    expected=f"{name} {expected} with agnostic: {str(self.agnostic).lower()}",
                    found=str(found),
                    where=f"model.init_args.network.init_args.decoder.init_args.{name}",
                    cure="correct it, or model.init_args.agnostic",
                )
        if self.info.get("color") is False and self.segmenter.inputs == "color":
            raise SuiteError(
                expected="points with colours, for the backbone reads them",
                found="a datamodule that withholds them",
                where="data.init_args.color",
                cure="set it to true, or model.init_args.network.init_args.inputs: occupancy",
            )
        if self.fusion is not None and self.info.get("image") is False:
            raise SuiteError(
                expected="frames with images, for the network fuses them",
                found="a datamodule that gives points alone",
                where="data.init_args.image",
                cure="set it to true, or model.init_args.network.init_args.fusion: null",
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Lets both branches count evenly in the first steps; the gate decides afterwards."""
        super().on_train_batch_start(batch, batch_idx)
        if self.fusion is not None:
            warmup = gate_warmup(int(self.trainer.estimated_stepping_batches))
            self.fusion.gate.learned.fill_(self.global_step >= warmup)

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Any]:
        samples = self._samples(batch)
        targets = [self.targets(batch, here, superpoint) for here, superpoint in samples]
        queries = [self._queries(len(t.semantic)) if stage == "train" else None for t in targets]
        segmented = self(batch, queries)
        terms = self.loss_terms.terms(segmented.decoded, targets, queries)
        if segmented.fused is not None:
            terms |= self._fusion_terms(segmented.fused, batch)
        weights = self.stages.weights(self.progress)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        self.log_loss(loss, stage, len(samples))
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(samples)}
        named = {f"{stage}/{name}": term.detach() for name, term in terms.items()}
        named |= {f"{stage}/{name}": x for name, x in gate_statistics(segmented.fused).items()}
        if stage == "train":
            if self.stages.enabled:
                named["train/stage"] = torch.tensor(float(self.stages.stage(self.progress)))
            self.log_dict(named, sync_dist=True, **options)
            return {"loss": loss}
        self.log_dict(named, sync_dist=True, **options)
        found = self.instances(segmented, batch)
        self._score(stage, found, batch)
        return {"loss": loss, "instances": found, "share": _share(segmented.fused)}

    def targets(self, batch: Batch, here: slice, superpoint: Tensor) -> Targets:
        """Ground truth of one sample."""
        return make_targets(
            batch["instance"][here],
            batch["semantic"][here],
            superpoint,
            int(superpoint.amax()) + 1,
            num_semantic=self.segmenter.decoder.num_semantic,
            stuff=self.stuff,
            agnostic=self.agnostic,
        )

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0..1."""
        if self._trainer is None or not self._fitting:
            return 1.0
        return min(self.global_step / max(self.trainer.estimated_stepping_batches, 1), 1.0)

    def _fusion_terms(self, fused: Fused, batch: Batch) -> dict[str, Tensor]:
        loss, terms = self.consistency, {}
        if loss.weight:
            terms["loss_clip"] = loss.clip_loss(
                fused.image, fused.points, fused.valid, batch["superpoint"]
            )
        if loss.neighbour_weight or loss.unseen_weight:
            terms["loss_aux"] = loss.auxiliary_loss(
                fused.features, batch["original_xyz"], batch["sample"], fused.valid
            )
        return terms

    def _queries(self, superpoints: int) -> Tensor:
        """Superpoints that become queries of a training sample, drawn at random."""
        share = random.uniform(self.query_fraction, 1)
        order = torch.randperm(superpoints, device=self.device)
        return order[: math.ceil(superpoints * share)]

    def _samples(self, batch: Batch) -> list[tuple[slice, Tensor]]:
        """Points of each sample, and their superpoints counted from its first."""
        found, p, s = [], 0, 0
        for points, superpoints in points_and_superpoints(batch["sample"], batch["superpoint"]):
            found.append((slice(p, p + points), batch["superpoint"][p : p + points] - s))
            p, s = p + points, s + superpoints
        return found

    def _score(self, stage: Stage, found: list[Instances], batch: Batch) -> None:
        scores = self._scores(stage)
        for instances, (here, superpoint) in zip(found, self._samples(batch), strict=True):
            truth = batch["instance"][here], batch["semantic"][here]
            scores.update(instances, *truth, superpoint)

    def _scores(self, stage: Stage) -> InstanceScores:
        found = self.scores[stage]
        assert isinstance(found, InstanceScores)
        return found

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the split."""
        self._log_scores("val")
        self._log_scores("val_raw")

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the split."""
        self._log_scores("test")

    def _log_scores(self, stage: Stage) -> None:
        scores = self._scores(stage)
        if not scores.updated:
            return
        named = {f"{stage}/{name}": value for name, value in scores.compute().items()}
        # A few samples tried before the training do not bound the whole split.
        scores.reset(bounds=self.trainer.sanity_checking)
        main = f"{stage}/ap50"
        self.log(main, named.pop(main), prog_bar=stage == "val")
        self.log_dict({name: value for name, value in named.items() if not math.isnan(value)})


def gate_statistics(fused: Fused | None) -> dict[str, Tensor]:
    """Mean and deviation of the image's share over points in it, and the share of such points."""
    if fused is None:
        return {}
    seen = fused.share.detach().float()[fused.valid]
    if not len(seen):
        seen = fused.share.detach().float()[:1] * 0
    return {
        "gate": seen.mean(),
        "gate_deviation": seen.std(correction=0),
        "in_image": fused.valid.float().mean(),
    }


def _share(fused: Fused | None) -> Tensor | None:
    return None if fused is None else fused.share
