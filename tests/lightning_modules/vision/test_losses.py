"""Losses against their formulas written out, and a fit with a teacher."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.vision import ImageClassification
from lightning_modules.vision.losses import Distillation, cosub_loss, distillation_loss
from tests.lightning_modules.vision.test_image_classification import (
    CLASSES,
    UNMIXED,
    Linear,
    batch,
    data,
    module,
    trainer,
)


def loss_after(taught: ImageClassification, given: dict[str, Tensor]) -> Tensor:
    """Training loss of a module that has been fitted, whose trainer no longer takes logs."""
    taught._trainer = None
    return taught.training_step(dict(given), 0)["loss"]


def bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_cosub_is_the_mean_of_four_sigmoid_losses(kind: Any) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, CLASSES), torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.1, 0.8]])
    first, second = logits[:2].tolist(), logits[2:].tolist()
    total = 0.0
    for i in range(2):
        for c in range(CLASSES):
            a, b, t = first[i][c], second[i][c], float(targets[i, c])
            t = float(t > 0) if kind == "bce" else t
            other = [1 / (1 + math.exp(-b)), 1 / (1 + math.exp(-a))]
            total += bce(a, t) + bce(b, t) + bce(a, other[0]) + bce(b, other[1])
    expected = total / 4 / (2 * CLASSES)
    assert float(cosub_loss(logits, targets, kind)) == pytest.approx(expected, rel=1e-5)


def test_cosub_does_not_pull_a_pass_towards_itself() -> None:
    logits = torch.randn(4, CLASSES, requires_grad=True)
    targets = torch.full((2, CLASSES), 0.3)
    [found] = torch.autograd.grad(cosub_loss(logits, targets, "cross_entropy"), logits)
    p = logits.detach().sigmoid()
    wanted = torch.cat([p[2:], p[:2]]) + targets.repeat(2, 1)
    assert torch.allclose(found, (2 * p - wanted) / 4 / (2 * CLASSES), atol=1e-6)


def test_soft_distillation_is_deits() -> None:
    torch.manual_seed(0)
    student, teacher, tau = torch.randn(5, CLASSES), torch.randn(5, CLASSES), 3.0
    p, q = (teacher / tau).softmax(1).double(), (student / tau).softmax(1).double()
    expected = tau**2 * float((p * (p / q).log()).sum()) / (5 * CLASSES)
    found = distillation_loss(student, teacher, Distillation("soft", tau=tau))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_loss(student, student, Distillation("soft"))) == pytest.approx(0)


def test_hard_distillation_learns_the_first_choice() -> None:
    student, teacher = torch.randn(5, CLASSES), torch.randn(5, CLASSES)
    right = student.log_softmax(1)[torch.arange(5), teacher.argmax(1)]
    found = distillation_loss(student, teacher, Distillation("hard"))
    assert torch.allclose(found, -right.mean())


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(5)
    torch.save({"model": Linear().state_dict()}, tmp_path / "teacher.pth")
    return str(tmp_path / "teacher.pth")


def distilled(weights: str | None, **options: Any) -> ImageClassification:
    kind = Distillation("soft", alpha=0.25, tau=2.0, teacher_weights=weights)
    return module(distillation=kind, teacher=Linear(), **options)


def test_a_fit_mixes_both_losses_by_alpha(tmp_path: Path, weights: str) -> None:
    taught = distilled(weights)
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(taught, data(tmp_path))
    expert = Linear()
    expert.load_state_dict(torch.load(weights, weights_only=True)["model"])
    given = batch()
    logits = taught(given["image"])
    own = module()
    own.network.load_state_dict(taught.network.state_dict())
    plain = own.training_step(dict(given), 0)["loss"]
    distance = distillation_loss(logits, expert(given["image"]), taught.distillation)
    found = loss_after(taught, given)
    assert torch.allclose(found, 0.75 * plain + 0.25 * distance, atol=1e-6)


def test_the_teacher_is_no_part_of_the_student(tmp_path: Path, weights: str) -> None:
    taught = distilled(weights)
    run = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    run.fit(taught, data(tmp_path))
    assert sum(p.numel() for p in taught.parameters()) == sum(
        p.numel() for p in Linear().parameters()
    )
    run.save_checkpoint(tmp_path / "last.ckpt")
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not any("teacher" in name for name in stored["state_dict"])
    again = ImageClassification.load_from_checkpoint(tmp_path / "last.ckpt")
    assert again.distillation == taught.distillation
    given = batch()["image"]
    assert torch.equal(again(given), taught(given))


class TwoHeads(Recorded, nn.Module):
    """Gives two logits in training, as DeiT's distilled models do."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = CLASSES
        self.body = Linear()
        self.both = False

    def set_distilled_training(self, enable: bool = True) -> None:
        self.both = enable

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.body(images)
        return (logits, 2 * logits) if self.both and self.training else 1.5 * logits


def test_the_second_head_learns_from_the_teacher(tmp_path: Path, weights: str) -> None:
    kind = Distillation("hard", alpha=1.0, teacher_weights=weights)
    taught = ImageClassification(
        TwoHeads(), module().optimizer_config, mixing=UNMIXED, distillation=kind, teacher=Linear()
    )
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(taught, data(tmp_path))
    given = batch()
    expert = Linear()
    expert.load_state_dict(torch.load(weights, weights_only=True)["model"])
    expected = distillation_loss(
        2 * taught.network.body(given["image"]), expert(given["image"]), kind
    )
    assert torch.allclose(loss_after(taught, given), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"teacher": Linear()}, "kind none, a teacher"),
        ({"distillation": Distillation("hard")}, "kind hard, no teacher"),
        (
            {"distillation": Distillation("hard"), "teacher": Linear(), "cosub": True},
            "cosub or distillation",
        ),
    ],
)
def test_half_a_distillation_is_refused(options: Any, advice: str) -> None:
    with pytest.raises(SuiteError, match=advice):
        module(**options)


def test_an_untrained_teacher_or_one_of_other_classes_is_refused(
    tmp_path: Path, weights: str
) -> None:
    with pytest.raises(SuiteError, match="teacher_weights"):
        trainer(tmp_path, max_steps=1).fit(distilled(None), data(tmp_path))
    torch.save(Linear(4).state_dict(), tmp_path / "four.pth")
    kind = Distillation("hard", teacher_weights=str(tmp_path / "four.pth"))
    four = module(distillation=kind, teacher=Linear(4))
    with pytest.raises(SuiteError, match="a teacher of 3 classes"):
        trainer(tmp_path, max_steps=1).fit(four, data(tmp_path))


def test_cosub_trains_on_two_passes(tmp_path: Path) -> None:
    taught, given = module(cosub=True), batch()
    seen: list[int] = []
    taught.network.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(taught, data(tmp_path))
    assert seen == [8]  # Batches of 4 images.
    targets = 0.9 * nn.functional.one_hot(given["label"], CLASSES) + 0.1 / CLASSES
    expected = cosub_loss(taught(given["image"]).repeat(2, 1), targets, "cross_entropy")
    assert torch.allclose(loss_after(taught, given), expected, atol=1e-6)
