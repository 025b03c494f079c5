"""ImageNet-style classification: Vim, and any network from images to logits.

Batch: image (B, 3, H, W) normalised float, label (B,) int64 with -1 for unknown, path list[str],
and real_labels (B, R) int64 filled up with -1, where the data has them.
Recipe and defaults: hustvl/Vim, itself DeiT's (arXiv 2012.12877).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn
from torchmetrics import MetricCollection

from blocks.errors import SuiteError
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.vision.losses import (
    Distillation,
    classification_loss,
    cosub_loss,
    distillation_loss,
)
from lightning_modules.vision.metrics import RealTop1, TopK
from lightning_modules.vision.mixing import Mixing, mix_batch
from lightning_modules.vision.per_class import PerClassTable
from lightning_modules.vision.pictures import ClassificationPictures
from lightning_modules.vision.predictions import PredictionTable
from lightning_modules.vision.teacher import Teacher
from lightning_modules.workload import Batch, Stage, Workload, run_seed


class ImageClassification(Workload):
    """Trains and evaluates an image classifier.

    Args:
        network: Maps images (B, 3, H, W) to logits (B, classes), e.g. `VisionMamba`.
        optimizer: Optimiser and learning-rate rule.
        schedule: Warm-up and cosine.
        mixing: Mixup and CutMix.
        label_smoothing: Mass moved from the true class to all classes, in 0..1.
        loss: `cross_entropy`, or `bce`: each class its own sigmoid, every mixed-in class a full 1.
        cosub: Show each image twice, with drop paths of its own, and let the passes agree
            (DeiT's `--cosub`); doubles the memory of a step.
        distillation: How to learn from `teacher`.
        teacher: A trained network of the same images and classes; `null` without distillation.
        pretrained: Weights to start from; positions are resized, a head of other classes is new.
        pretrained_weights: `model` or its moving average `model_ema`, where the file holds both.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor = "val/top1"
    mode = "max"
    units = {"top1": "%", "top5": "%", "real_top1": "%"}

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer = Optimizer(),
        schedule: Schedule = Schedule(),
        mixing: Mixing = Mixing(),
        label_smoothing: float = 0.1,
        loss: Literal["cross_entropy", "bce"] = "cross_entropy",
        cosub: bool = False,
        distillation: Distillation = Distillation(),
        teacher: nn.Module | None = None,
        pretrained: str | None = None,
        pretrained_weights: Literal["model", "model_ema"] = "model",
        compile_network: bool = False,
    ) -> None:
        super().__init__(
            network, optimizer, schedule, pretrained, pretrained_weights, compile_network
        )
        self.mixing = mixing
        self.label_smoothing = label_smoothing
        self.loss_name: Literal["cross_entropy", "bce"] = loss
        self.cosub = cosub
        self.distillation = distillation
        self._teacher = None if teacher is None else Teacher(teacher)
        self._check_teacher(teacher)
        accuracy = MetricCollection({"top1": TopK(1), "top5": TopK(5)})
        self.val_metrics = accuracy.clone(prefix="val/")
        self.val_raw_metrics = accuracy.clone(prefix="val_raw/")
        self.test_metrics = accuracy.clone(prefix="test/")
        self.val_real, self.val_raw_real, self.test_real = RealTop1(), RealTop1(), RealTop1()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Class probabilities (B, classes)."""
        return {"probabilities": self(batch["image"]).float().softmax(dim=1)}

    def configure_callbacks(self) -> list[Callback]:
        """Pictures and tables, unless the trainer has its own or only tries things."""
        if getattr(self.trainer, "fast_dev_run", False):
            return []
        present = {type(callback) for callback in getattr(self.trainer, "callbacks", ())}
        own = (ClassificationPictures(), PredictionTable(), PerClassTable())
        return [callback for callback in own if type(callback) not in present]

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Builds the head of a network made with `num_classes: null`."""
        classes = len(info.get("class_names") or ())
        if classes and getattr(self.network, "num_classes", classes) is None:
            reset: Callable[[int], None] = self.network.reset_classifier  # type: ignore[assignment]
            reset(classes)

    def check_data(self) -> None:
        """Classes and image size of the data must be those of the network.

        Raises:
            SuiteError: They differ.
        """
        for attribute, fact, key in (
            ("num_classes", len(self.info.get("class_names") or ()) or None, "num_classes"),
            ("img_size", _pair(self.info.get("img_size")), "img_size"),
        ):
            built = getattr(self.network, attribute, None)
            if getattr(self.network, "dynamic_img_size", False) and key == "img_size":
                continue
            if fact is not None and built is not None and built != fact:
                raise SuiteError(
                    expected=f"{key} {fact}, as the data set at {self.info['root']} has",
                    found=f"{key} {built} in the network",
                    where=f"model.init_args.network.init_args.{key}",
                    cure=f"set it to {list(fact) if isinstance(fact, tuple) else fact}, "
                    "or point data.init_args at the data you meant",
                )

    def fresh_entries(self) -> tuple[str, ...]:
        """A head of other classes starts afresh; timm's networks say what theirs is called."""
        config = getattr(self.network, "pretrained_cfg", None) or {}
        return (f"{config.get('classifier') or 'head'}.*",)

    def on_fit_start(self) -> None:
        """Fetches the teacher, and lets a student with a head for it train both heads."""
        if self._teacher is not None:
            weights = self.distillation.teacher_weights
            self._teacher.prepare(weights, self._num_classes(), self.device)
            if callable(train_both := getattr(self.network, "set_distilled_training", None)):
                train_both(True)

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        images, labels = batch["image"], batch["label"]
        if stage == "train":
            images, targets = self._mix(images, labels)
            loss = self._training_loss(images, targets)
            self.log_loss(loss, stage, len(images))
            return {"loss": loss}
        logits = self(images).float()
        known = labels >= 0
        loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        loss = loss / known.sum().clamp(min=1)
        metrics, real = {
            "val": (self.val_metrics, self.val_real),
            "val_raw": (self.val_raw_metrics, self.val_raw_real),
            "test": (self.test_metrics, self.test_real),
        }[stage]
        metrics.update(logits, labels)
        self.log_loss(loss, stage, int(known.sum()))
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
        self.log_dict(metrics, prog_bar=stage == "val", **options)
        if "real_labels" in batch:
            real.update(logits, batch["real_labels"])
            self.log(f"{stage}/real_top1", real, **options)
        return {"loss": loss, "logits": logits}

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # With bce every class above zero counts as present: smoothing would switch all of them on.
        smoothing = 0.0 if self.loss_name == "bce" else self.label_smoothing
        if self.mixing.on:
            return mix_batch(
                images,
                labels,
                self.mixing,
                num_classes=self._num_classes(),
                smoothing=smoothing,
                seed=run_seed(),
                epoch=self.current_epoch,
                batch=self.trainer.fit_loop.batch_idx,
            )
        targets = F.one_hot(labels, self._num_classes()).float()
        return images, targets * (1 - smoothing) + smoothing / targets.shape[1]

    def _training_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        if self.cosub:
            return cosub_loss(self(images.repeat(2, 1, 1, 1)), targets, self.loss_name)
        outputs = self(images)
        # A network with a second head for the teacher gives two logits while it trains.
        logits, taught = outputs if isinstance(outputs, tuple) else (outputs, outputs)
        loss = classification_loss(logits, targets, self.loss_name)
        if self._teacher is None:
            return loss
        distance = distillation_loss(taught, self._teacher(images), self.distillation)
        return loss * (1 - self.distillation.alpha) + distance * self.distillation.alpha

    def _check_teacher(self, teacher: nn.Module | None) -> None:
        kind = self.distillation.kind
        if (kind == "none") != (teacher is None):
            raise SuiteError(
                expected="a teacher and a kind of distillation, or neither",
                found=f"kind {kind}, {'no teacher' if teacher is None else 'a teacher'}",
                where="model.init_args.distillation",
                cure="set distillation.kind: hard or soft, and teacher: class_path, init_args",
            )
        if self.cosub and teacher is not None:
            raise SuiteError(
                expected="cosub or distillation",
                found="both",
                where="model.init_args",
                cure="choose one: cosub already learns from the network's own second pass",
            )

    def _num_classes(self) -> int:
        return len(self.info["class_names"])


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
