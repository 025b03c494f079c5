"""Losses between the branches against vectors of the reference."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lightning_modules.scannet.consistency import Consistency, neighbour_loss, unseen_loss
from lightning_modules.scannet.fusion_schedule import GROUPS, StageWeights, gate_warmup
from tests.conftest import GOLDEN

VECTORS = load_file(GOLDEN / "scannet" / "bifusion.safetensors")
VALID, SUPERPOINT = VECTORS["valid"].bool(), torch.arange(120) // 10


def test_pointwise_loss_equals_the_reference() -> None:
    loss = Consistency(weight=1).clip_loss(VECTORS["f2d"], VECTORS["f3d"], VALID, SUPERPOINT)
    torch.testing.assert_close(loss, VECTORS["clip_loss/pointwise"], atol=2e-5, rtol=1e-4)
    cosine = Consistency(weight=1, kind="cosine")
    everywhere = torch.ones_like(VALID)
    loss = cosine.clip_loss(VECTORS["f2d"], VECTORS["f3d"], everywhere, SUPERPOINT)
    torch.testing.assert_close(loss, VECTORS["clip_loss/legacy_cosine"], atol=2e-5, rtol=1e-4)


def test_gradients_equal_the_reference() -> None:
    image, points = (VECTORS[name].clone().requires_grad_() for name in ("f2d", "f3d"))
    Consistency(weight=1).clip_loss(image, points, VALID, SUPERPOINT).backward()
    for x, name in ((image, "grad_f2d"), (points, "grad_f3d")):
        torch.testing.assert_close(x.grad, VECTORS[f"clip_loss/{name}"], atol=2e-5, rtol=1e-4)


def test_contrast_equals_the_plain_formula_and_knows_its_own() -> None:
    g = torch.Generator().manual_seed(0)
    image, points = torch.randn(40, 8, generator=g), torch.randn(40, 8, generator=g)
    group = torch.arange(40) // 8
    found = Consistency(weight=2, kind="infonce").clip_loss(
        image, points, torch.ones(40).bool(), group
    )
    a, b = (F.normalize(x.view(5, 8, 8).mean(1), dim=1) for x in (image, points))
    logits, same = b @ a.T / 0.07, torch.arange(5)
    expected = F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)
    torch.testing.assert_close(found, expected)
    alike = Consistency(weight=1, kind="infonce").clip_loss(
        image, image, torch.ones(40).bool(), group
    )
    assert alike < 0.1 * found


def test_no_point_in_the_image_is_no_loss_but_a_gradient() -> None:
    x = torch.randn(6, 4, requires_grad=True)
    loss = Consistency().clip_loss(x, x, torch.zeros(6).bool(), torch.zeros(6).long())
    loss.backward()
    assert loss == 0 and x.grad is not None and not x.grad.any()


def test_auxiliary_losses_equal_the_reference() -> None:
    sample = torch.zeros(120).long()
    found = neighbour_loss(VECTORS["f3d"], VECTORS["xyz"], sample, radius=10.0)
    expected = VECTORS["spatial_consistency"]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    found = unseen_loss(VECTORS["f3d"], VALID)
    torch.testing.assert_close(found, VECTORS["no_view"], atol=2e-5, rtol=1e-4)
    assert unseen_loss(VECTORS["f3d"], torch.ones(120).bool()) == 0


def test_stages_change_at_their_time_and_the_middle_one_is_the_baseline() -> None:
    stages = StageWeights(enabled=True)
    assert [stages.stage(p) for p in (0, 0.29, 0.3, 0.69, 0.7, 1)] == [0, 0, 1, 1, 2, 2]
    assert set(stages.weights(0.5).values()) == {1.0}
    first = StageWeights(enabled=True, normalize=False).weights(0)
    assert first["loss_clip"] == 0.2 and first["loss_mask"] == first["loss_cls"] == 0.4
    assert stages.weights(0)["loss_clip"] == pytest.approx(0.2 / 0.08)
    assert StageWeights().weights(0) == dict.fromkeys(GROUPS, 1.0)


def test_the_gate_warms_up_a_tenth_of_the_run_or_3000_steps() -> None:
    assert [gate_warmup(n) for n in (0, 5, 200, 30_000, 10**6)] == [0, 0, 20, 3000, 3000]
