"""A run cut anywhere goes on as if nothing had happened: equal weights, bit for bit."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from blocks import Recorded
from datamodules.vision import Augment, ImageNetDataModule
from lightning_modules.ema import EMA
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.vision import ImageClassification, Mixing

BATCHES, EPOCHS = 4, 3
Whole = tuple[dict[str, Tensor], list[list[str]], dict[int, dict[str, float]]]


class Noisy(Recorded, nn.Module):
    """Small, with every kind of randomness and state a network brings along."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first = nn.Linear(3 * 8 * 8, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.first(images.flatten(1)), 0.3, self.training)
        if self.training:
            hidden = hidden * (1 + 0.01 * random.random()) + 0.01 * float(np.random.randn())
        out: Tensor = self.head(self.norm(hidden).relu())
        return out


class PowerCut(Exception):
    """Ends a run where a test wants it."""


class CutAt(Callback):
    """Raises at a moment: (hook, global step)."""

    def __init__(self, hook: str, step: int) -> None:
        setattr(self, hook, self._cut)
        self.step = step

    def _cut(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            raise PowerCut


class Position(Callback):
    """Records the files of every training batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, *_: Any) -> None:
        self.batches.append([Path(path).name for path in batch["path"]])


class Validations(Callback):
    """Records the metrics of every whole validation by global step."""

    def __init__(self) -> None:
        self.metrics: dict[int, dict[str, float]] = {}

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val")}
        self.metrics[trainer.global_step] = values


def module() -> ImageClassification:
    seed_everything(0)
    schedule = Schedule(warmup_epochs=1, min_lr=1e-4)
    optimizer = Optimizer(lr=1e-2, lr_scale_batch=None)
    return ImageClassification(Noisy(), optimizer, schedule, Mixing())


def data(workers: int = 0) -> ImageNetDataModule:
    augment = Augment(auto_augment="rand-m5-n1", reprob=0.5)
    return ImageNetDataModule(
        img_size=8, batch_size=16, num_workers=workers, crop_pct=1.0, augment=augment
    )


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    given: dict[str, Any] = {"max_epochs": EPOCHS, "limit_train_batches": BATCHES, **options}
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **given,
    )


def final(module: ImageClassification) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Final weights, order and validations of the uninterrupted run."""
    seen, validated, trained = Position(), Validations(), module()
    folder = tmp_path_factory.mktemp("whole")
    trainer(folder, seen, validated, EMA(decay=0.9)).fit(trained, data())
    assert len(seen.batches) == BATCHES * EPOCHS
    assert list(validated.metrics) == [4, 8, 12]
    return final(trained), seen.batches, validated.metrics


def interrupted(
    folder: Path, cut: CutAt, save: Callable[[Path], list[Callback]], *more: Callback
) -> Path:
    """Runs until the cut; returns the only checkpoint."""
    with pytest.raises(PowerCut):
        trainer(folder, EMA(decay=0.9), *more, *save(folder), cut).fit(module(), data())
    (path,) = folder.glob("*.ckpt")
    return path


def on_exception(folder: Path) -> list[Callback]:
    return [ModelCheckpoint(folder, "x", save_on_exception=True, every_n_epochs=1000)]


def each_batch(folder: Path) -> list[Callback]:
    return [ModelCheckpoint(folder, "x", every_n_train_steps=1, enable_version_counter=False)]


def each_epoch(folder: Path) -> list[Callback]:
    return [
        ModelCheckpoint(folder, "x", save_on_train_epoch_end=True, enable_version_counter=False)
    ]


MOMENTS = (
    *(("on_train_batch_start", step) for step in (1, 3, 4, 6)),
    *(("on_train_batch_end", step) for step in (2, 4)),
    ("on_validation_start", 4),
    ("on_validation_batch_end", 8),
    ("on_validation_end", 4),
    ("on_train_epoch_end", 8),
    ("on_train_epoch_start", 8),
)
SAVES = {"exception": on_exception, "batch": each_batch, "epoch": each_epoch}
CASES = [
    pytest.param(save, hook, step, workers, id=f"{name} {hook} {step} workers {workers}")
    for name, save in SAVES.items()
    for hook, step in MOMENTS
    for workers in (0, 1)
    # One kind of cut suffices for workers; saving by epochs needs a whole one.
    if (workers == 0 or (name, hook) == ("batch", "on_train_batch_start"))
    and (name != "epoch" or step > BATCHES)
]


@pytest.mark.parametrize(("save", "hook", "step", "workers"), CASES)
def test_a_cut_run_ends_with_equal_weights(
    tmp_path: Path,
    whole: Whole,
    hook: str,
    step: int,
    save: Callable[[Path], list[Callback]],
    workers: int,
) -> None:
    validated = Validations()
    path = interrupted(tmp_path, CutAt(hook, step), save, validated)
    steps = torch.load(path, weights_only=True)["global_step"]
    seen, resumed, again = Position(), module(), Validations()
    trainer(tmp_path, seen, again, EMA(decay=0.9)).fit(resumed, data(workers), ckpt_path=path)
    assert seen.batches == whole[1][steps:]
    assert_same(final(resumed), whole[0])
    # No validation is lost, none is of a part of the data, and none differs.
    assert {**validated.metrics, **again.metrics} == whole[2]
