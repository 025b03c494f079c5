"""Losses against their formulas, mixing against its seed, metrics against counting."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from datamodules.vision import Augment, ImageNetDataModule
from datamodules.vision.miniatures import write_folder_layout
from lightning_modules.optimization import Optimizer
from lightning_modules.vision import ImageClassification, Mixing
from lightning_modules.vision.losses import classification_loss
from lightning_modules.vision.mixing import mix_batch

CLASSES = 3
UNMIXED = Mixing(mixup=0.0, cutmix=0.0)
SIZE = (3, 16, 16)


class Linear(Recorded, nn.Module):
    """Logits of a picture by one matrix."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(3 * 16 * 16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def module(**options: Any) -> ImageClassification:
    torch.manual_seed(0)
    rate = Optimizer(lr=1e-3, lr_scale_batch=None)
    built = ImageClassification(Linear(), rate, **{"mixing": UNMIXED, **options})
    built.info = {"class_names": ["a", "b", "c"]}
    return built


def batch(size: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, *SIZE, generator=generator)
    return {"image": images, "label": torch.arange(size) % CLASSES}


def data(tmp_path: Path, **options: Any) -> ImageNetDataModule:
    root = tmp_path / "data"
    write_folder_layout(root, classes=CLASSES, per_class=5, size=20)
    given = {"img_size": 16, "batch_size": 4, "num_workers": 0, "augment": Augment(policy="none")}
    return ImageNetDataModule(root=str(root), **{**given, **options})


def trainer(tmp_path: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **options,
    )


# ---- losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_equals_its_formula_with_smoothing(smoothing: float) -> None:
    taught, given = module(label_smoothing=smoothing), batch()
    found = taught.training_step(dict(given), 0)["loss"]
    logs = taught(given["image"]).double().log_softmax(1)
    right = -logs[torch.arange(6), given["label"]]
    expected = ((1 - smoothing) * right - smoothing * logs.mean(1)).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_gives_each_class_its_own_sigmoid_and_no_smoothing(smoothing: float) -> None:
    taught, given = module(loss="bce", label_smoothing=smoothing), batch()
    found = taught.training_step(dict(given), 0)["loss"]
    p = taught(given["image"]).double().sigmoid()
    expected = 0.0
    for row, label in zip(p.tolist(), given["label"].tolist(), strict=True):
        for c, q in enumerate(row):
            expected -= float(np.log(q if c == label else 1 - q)) / (6 * CLASSES)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_bce_counts_every_mixed_in_class_in_full() -> None:
    logits, targets = torch.randn(2, CLASSES), torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
    found = classification_loss(logits, targets, "bce")
    p, full = logits.sigmoid(), targets.ceil()
    expected = -(full * p.log() + (1 - full) * (1 - p).log()).mean()
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_loss_is_computed_in_float32_under_autocast() -> None:
    taught = module(label_smoothing=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert taught.training_step(batch(), 0)["loss"].dtype == torch.float32


def test_evaluation_loss_is_plain_cross_entropy_without_unknown_labels() -> None:
    taught, given = module(label_smoothing=0.5), batch()
    given["label"][2] = -1
    found = taught.validation_step(given, 0)
    logs = taught(given["image"]).log_softmax(1)
    known = [i for i in range(6) if i != 2]
    expected = -sum(logs[i, given["label"][i]] for i in known) / 5
    assert torch.allclose(found["loss"], expected, atol=1e-6)
    assert torch.equal(found["logits"], taught(given["image"]))


def test_prediction_gives_probabilities() -> None:
    found = module().predict_step(batch(), 0)["probabilities"]
    assert torch.allclose(found.sum(1), torch.ones(6))
    assert torch.allclose(found, module()(batch()["image"]).softmax(1))


def test_validation_and_test_report_their_accuracy(tmp_path: Path) -> None:
    taught, given = module(), data(tmp_path)
    for verb, stage in (("validate", "val"), ("test", "test")):
        run = trainer(tmp_path)
        [found] = getattr(run, verb)(taught, given, verbose=False)
        assert found.keys() == {f"{stage}/loss", f"{stage}/top1", f"{stage}/top5"}
        logits, labels = [], []
        for part in run.val_dataloaders if verb == "validate" else run.test_dataloaders:
            logits.append(taught(part["image"]))
            labels.append(part["label"])
        truth, scores = torch.cat(labels), torch.cat(logits)
        top1 = 100 * (scores.argmax(1) == truth).float().mean()
        assert found[f"{stage}/top1"] == pytest.approx(float(top1), abs=1e-4)
        loss = nn.functional.cross_entropy(scores, truth)
        assert found[f"{stage}/loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(("verb", "stage"), [("validate", "val"), ("test", "test")])
def test_reassessed_labels_are_reported_where_the_data_has_them(
    tmp_path: Path, verb: str, stage: str
) -> None:
    def reassess(batch: dict[str, Any], *_: Any) -> None:
        batch["real_labels"] = torch.stack([batch["label"], (batch["label"] + 1) % CLASSES], 1)

    taught, given = module(), data(tmp_path)
    setattr(taught, f"on_{'validation' if verb == 'validate' else verb}_batch_start", reassess)
    [found] = getattr(trainer(tmp_path), verb)(taught, given, verbose=False)
    right = []
    for part in given.val_dataloader():
        guess = taught(part["image"]).argmax(1)
        right += ((guess - part["label"]) % CLASSES <= 1).tolist()
    expected = 100 * sum(right) / len(right)
    assert found[f"{stage}/real_top1"] == pytest.approx(expected, abs=1e-4)
    assert found[f"{stage}/real_top1"] > found[f"{stage}/top1"]


# ---- mixing -------------------------------------------------------------------------------------


def mixed(mixing: Mixing, epoch: int = 0, number: int = 0, size: int = 6, **options: Any) -> Any:
    """Mixes pictures that are constant: picture i is filled with i and has class i."""
    images = torch.arange(float(size)).view(-1, 1, 1, 1).expand(size, 3, 8, 8).clone()
    given = {"num_classes": size, "smoothing": 0.0, "seed": 0} | options
    return mix_batch(images, torch.arange(size), mixing, epoch=epoch, batch=number, **given)


@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup_mixes_images_and_targets_by_the_same_share(mode: Any, smoothing: float) -> None:
    images, targets = mixed(Mixing(cutmix=0.0, mode=mode), smoothing=smoothing)
    for i in range(6):
        floor = smoothing / 6
        share = (float(targets[i, i]) - floor) / (1 - smoothing)
        assert 0 <= share <= 1
        assert float(targets[i, 5 - i]) == pytest.approx((1 - share) * (1 - smoothing) + floor)
        assert float(targets[i].sum()) == pytest.approx(1)
        expected = torch.full((3, 8, 8), share * i + (1 - share) * (5 - i))
        assert torch.allclose(images[i], expected, atol=1e-5)


def test_cutmix_pastes_a_box_and_shares_by_its_area() -> None:
    images, targets = mixed(Mixing(mixup=0.0))
    for i in range(6):
        own = images[i] == i
        assert bool((own | (images[i] == 5 - i)).all())
        assert float(targets[i, i]) == pytest.approx(float(own.float().mean()), abs=1e-6)


def test_mixing_depends_on_seed_epoch_and_batch_alone() -> None:
    first = mixed(Mixing(), 1, 2)
    np.random.seed(99)
    torch.manual_seed(99)
    random.seed(99)
    again = mixed(Mixing(), 1, 2)
    assert all(map(torch.equal, first, again))
    for epoch, number in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(first[0], mixed(Mixing(), epoch, number)[0])
    assert not torch.equal(first[0], mixed(Mixing(), 1, 2, seed=4)[0])


def test_mixing_leaves_numpys_generator_as_it_was() -> None:
    np.random.seed(5)
    expected = np.random.RandomState(5).rand(4)
    first = np.random.rand(2)
    mixed(Mixing())
    with pytest.raises(SuiteError):
        mixed(Mixing(), size=5)
    assert np.array_equal(np.concatenate([first, np.random.rand(2)]), expected)


def test_an_odd_batch_is_refused_with_both_cures() -> None:
    with pytest.raises(SuiteError, match="5 images") as caught:
        mixed(Mixing(), size=5)
    for part in ("data.init_args.batch_size", "mixup: 0, cutmix: 0"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("mixing", "on"),
    [
        (Mixing(), True),
        (Mixing(mixup=0.0), True),
        (Mixing(cutmix=0.0), True),
        (UNMIXED, False),
        (Mixing(prob=0.0), False),
        (Mixing(mixup=0.0, cutmix=0.0, cutmix_minmax=(0.2, 0.8)), True),
    ],
)
def test_knows_whether_anything_is_mixed(mixing: Mixing, on: bool) -> None:
    assert mixing.on is on


def test_a_trainer_mixes_by_epoch_and_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules.vision import image_classification

    calls: list[tuple[int, int]] = []

    def record(*args: Any, **options: Any) -> Any:
        calls.append((options["epoch"], options["batch"]))
        return mix_batch(*args, **options)

    monkeypatch.setattr(image_classification, "mix_batch", record)
    taught = module(mixing=Mixing())
    trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(taught, data(tmp_path))
    assert calls == [(epoch, number) for epoch in range(2) for number in range(3)]


def test_unmixed_training_takes_odd_batches(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    run.fit(module(), data(tmp_path, batch_size=5))
    assert run.global_step == 3
