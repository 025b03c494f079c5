"""Retrieval losses against the values and gradients of torchreid, TransReID, fast-reid and FSRA."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.vision.retrieval.losses import (
    cross_view_triplet_loss,
    id_loss,
    mutual_kl_loss,
    pair_views,
    triplet_loss,
)

Case = Callable[[Tensor, Tensor], Tensor]
VIEWS = torch.arange(24) // 12
ON_FEATURES: dict[str, Case] = {
    "triplet_torchreid_margin0.3": lambda x, y: triplet_loss(x, y, 0.3),
    "triplet_transreid_soft": lambda x, y: triplet_loss(x, y, None),
    "triplet_transreid_margin0.3": lambda x, y: triplet_loss(x, y, 0.3),
    "triplet_transreid_soft_normalized": lambda x, y: triplet_loss(x, y, None, "normalized"),
    "triplet_fastreid_hard_soft": lambda x, y: triplet_loss(x, y, None),
    "triplet_fastreid_hard_margin0.3": lambda x, y: triplet_loss(x, y, 0.3),
    "triplet_fastreid_hard_margin0.3_cosine": lambda x, y: triplet_loss(x, y, 0.3, "cosine"),
    "triplet_fastreid_weighted_margin0.3": lambda x, y: triplet_loss(x, y, 0.3, hard_mining=False),
}
ON_LOGITS: dict[str, Case] = {
    "ce_smooth_torchreid_eps0.1": lambda z, y: id_loss(z, y, 0.1),
    "ce_smooth_fastreid_eps0.1": lambda z, y: id_loss(z, y, 0.1, "others"),
    "ce_adaptive_fastreid_alpha0.2": lambda z, y: id_loss(z, y, 0.2, "adaptive"),
    "kl_fsra": lambda z, y: mutual_kl_loss(z[:12], z[12:]),
}
OF_VIEWS: dict[str, Case] = {
    "triplet_fsra_crossview_margin0.3": lambda x, y: cross_view_triplet_loss(x, y, VIEWS, 0.3),
}
CASES = [
    (name, case, *inputs)
    for cases, *inputs in (
        (ON_FEATURES, "feat", "labels"),
        (ON_LOGITS, "logits", "targets"),
        (OF_VIEWS, "feat", "labels_crossview"),
    )
    for name, case in cases.items()
]


@pytest.mark.parametrize(("name", "case", "x", "y"), CASES, ids=[case[0] for case in CASES])
def test_values_and_gradients_are_those_of_the_original(
    name: str, case: Case, x: str, y: str, golden: Path
) -> None:
    tensors = {
        k: torch.from_numpy(v) for k, v in np.load(golden / "vision/reid_losses.npz").items()
    }
    expected = json.loads((golden / "vision/reid_losses.json").read_text())["values"][name]
    inputs = tensors[x].requires_grad_()
    loss = case(inputs, tensors[y])
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, inputs)
    wanted = tensors[f"grad.{name}"]
    assert (gradient - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_every_golden_loss_is_tested(golden: Path) -> None:
    values = json.loads((golden / "vision/reid_losses.json").read_text())["values"]
    assert {case[0] for case in CASES} == values.keys()


def test_distances_do_not_overflow_in_half_precision() -> None:
    features = (200 * torch.randn(8, 4096)).to(torch.float16).requires_grad_()
    with torch.autocast("cpu", torch.float16):
        loss = triplet_loss(features, torch.arange(8) // 2)
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32
    assert features.grad is not None and features.grad.isfinite().all()


def test_equal_features_have_finite_gradients() -> None:
    features = torch.ones(8, 4, requires_grad=True)
    triplet_loss(features, torch.arange(8) // 2, margin=None).backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_a_batch_of_one_identity_has_no_triplets() -> None:
    features = torch.randn(4, 3, requires_grad=True)
    loss = triplet_loss(features, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0


def test_rows_of_two_views_pair_up_by_identity() -> None:
    labels, views = torch.tensor([3, 1, 1, 2, 3, 2]), torch.tensor([0, 0, 1, 1, 1, 0])
    first, second = pair_views(labels, views)
    assert labels[first].tolist() == labels[second].tolist() == [1, 2, 3]
    assert views[first].tolist() == [0, 0, 0] and views[second].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("labels", "views"), [([0, 1], [0, 0]), ([0, 1], [0, 1]), ([0, 0, 0], [0, 1, 2])]
)
def test_views_that_do_not_pair_up_are_refused(labels: list[int], views: list[int]) -> None:
    with pytest.raises(SuiteError, match="pairs of views"):
        pair_views(torch.tensor(labels), torch.tensor(views))


def test_cross_view_triplets_need_two_views() -> None:
    with pytest.raises(SuiteError, match="two views"):
        cross_view_triplet_loss(torch.randn(4, 2), torch.arange(4), torch.zeros(4))
