"""Losses and their gradients against the originals."""

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.pose.losses import TERMS, PoseLoss, limb_angles, limb_lengths
from tests.conftest import GOLDEN

VECTORS = np.load(GOLDEN / "pose" / "losses_metrics.npz")


def get(name: str) -> Tensor:
    return torch.from_numpy(VECTORS[name])


@pytest.mark.parametrize("name", TERMS)
def test_a_term_and_its_gradient_equal_the_originals(name: str) -> None:
    prediction = get("pred").requires_grad_()
    loss = TERMS[name](prediction, get("gt"))
    torch.testing.assert_close(loss, get(f"val/{name}"), rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss, prediction)
    torch.testing.assert_close(gradient, get(f"grad/{name}"), rtol=1e-9, atol=1e-9)


def test_the_default_is_the_published_recipe() -> None:
    prediction, loss = get("pred").requires_grad_(), PoseLoss()
    terms = loss.terms(prediction, get("gt"))
    assert list(terms) == ["mpjpe", "n_mpjpe", "velocity"]
    total = loss.total(terms)
    torch.testing.assert_close(total, get("val/recipe_total"), rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(total, prediction)
    torch.testing.assert_close(gradient, get("grad/recipe_total"), rtol=1e-9, atol=1e-9)


def test_limbs_and_angles_equal_the_originals() -> None:
    torch.testing.assert_close(limb_lengths(get("gt")), get("limb_lens_gt"), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(limb_angles(get("gt")), get("angles_gt"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["velocity", "limb_var", "angle_velocity"])
def test_one_frame_has_no_motion(name: str) -> None:
    assert TERMS[name](get("pred")[:, :1], get("gt")[:, :1]) == 0


def test_a_loss_without_terms_is_refused() -> None:
    with pytest.raises(SuiteError, match="weights of 0"):
        PoseLoss(0, 0, 0)
