"""Blocks over one grid: against the blocks by themselves, and the promises of its timm methods."""

from typing import Any

import pytest
import timm
import torch

from blocks.errors import SuiteError
from lightning_modules.vision import IsotropicSS2D


def small(**options: Any) -> IsotropicSS2D:
    torch.manual_seed(0)
    given = {"img_size": 32, "patch_size": 8, "dim": 16, "depth": 3, "d_state": 4, "num_classes": 5}
    return IsotropicSS2D(**{**given, **options})


def test_equals_its_formula() -> None:
    model, images = small(img_size=(16, 24)).eval(), torch.randn(2, 3, 16, 24)
    proj = model.patch_embed.proj
    x = torch.nn.functional.conv2d(images, proj.weight, proj.bias, stride=8)
    x = x + model.pos_embed.mT.unflatten(2, (2, 3))
    for block in model.layers:
        grid = x.movedim(1, -1)
        x = x + block.op(torch.nn.functional.layer_norm(grid, (16,))).movedim(-1, 1)
    features = torch.nn.functional.layer_norm(x.movedim(1, -1), (16,)).mean((1, 2))
    assert torch.allclose(model(images), model.head(features), atol=1e-5)


def test_positions_follow_the_rows_of_the_image() -> None:
    model = small(depth=1)
    moved = small(depth=1)
    with torch.no_grad():
        moved.pos_embed[0, 4:8] += 5 * torch.randn(4, 16)  # second row of patches
    images = torch.randn(1, 3, 32, 32)
    before, after = (m.eval()._embed(images) for m in (model, moved))
    changed = (before != after).any(-1)[0]
    assert changed[1].all() and changed.sum() == 4


def test_tokens_are_pooled_by_their_mean() -> None:
    model = small().eval()
    tokens = model.forward_features(torch.randn(2, 3, 32, 32))
    assert tokens.shape == (2, 16, 16)
    assert torch.equal(model.forward_head(tokens, pre_logits=True), tokens.mean(1))
    assert model.forward_head(tokens).shape == (2, 5)


def test_takes_images_of_any_aspect_and_stride() -> None:
    model = small(img_size=(24, 40), stride=4)
    assert model.patch_embed.grid == (5, 9)
    assert model(torch.randn(2, 3, 24, 40)).shape == (2, 5)


def test_refuses_an_image_of_another_size_by_name() -> None:
    with pytest.raises(SuiteError, match="dynamic_img_size"):
        small()(torch.randn(1, 3, 40, 40))


def test_dynamic_image_size_equals_a_model_set_to_that_size() -> None:
    images = torch.randn(2, 3, 48, 40)
    dynamic, resized = small(dynamic_img_size=True).eval(), small().eval()
    resized.set_input_size((48, 40))
    assert resized.pos_embed.shape == (1, 30, 16)
    assert torch.allclose(dynamic(images), resized(images), atol=1e-6)


def test_weights_of_another_size_fit_after_resizing() -> None:
    old, new = small(), small(img_size=64)
    state = new.adapt_state_dict(old.state_dict())
    new.load_state_dict(state)
    assert new.pos_embed.shape == (1, 64, 16)
    assert small(img_size=32).adapt_state_dict(old.state_dict()).keys() == state.keys()
    wide = small(img_size=(32, 64))
    with pytest.raises(SuiteError, match="patch rows"):
        new.adapt_state_dict({"pos_embed": wide.pos_embed[:, :-2]})
    assert new.adapt_state_dict(wide.state_dict(), grid=(4, 8))["pos_embed"].shape == (1, 64, 16)


def test_intermediates_are_maps_or_tokens() -> None:
    model, images = small(img_size=(32, 48)).eval(), torch.randn(2, 3, 32, 48)
    final, maps = model.forward_intermediates(images, indices=2, norm=True)
    assert [m.shape for m in maps] == [(2, 16, 4, 6)] * 2
    assert torch.equal(maps[-1].flatten(2).mT, final)
    assert torch.equal(final, model.forward_features(images))
    _, raw = model.forward_intermediates(images, output_fmt="NLC")
    early = model.forward_intermediates(
        images, [0, 1], stop_early=True, output_fmt="NLC", intermediates_only=True
    )
    assert [t.shape for t in early] == [(2, 24, 16)] * 2
    assert all(torch.equal(a, b) for a, b in zip(early, raw[:2], strict=True))
    assert torch.equal(model.norm(raw[-1]), final)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    images, gradients = torch.randn(2, 3, 32, 32), []
    for enable in (False, True):
        model = small(grad_checkpointing=enable, mlp_ratio=2.0, forward_type="v05_noz").train()
        torch.manual_seed(1)
        model(images).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_null_classes_wait_for_the_data_and_are_recorded() -> None:
    model = small(num_classes=None)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 16)
    model.reset_classifier(3)
    again = IsotropicSS2D(**model.init_call["init_args"])
    again.load_state_dict(model.state_dict())
    assert again.get_classifier().weight.shape == (3, 16)


def test_layer_wise_learning_rates_group_stem_blocks_and_head() -> None:
    model = small()
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["pos_embed"] == groups["patch_embed.proj.weight"] == 0
    assert groups["layers.0.op.Ds"] == 1
    assert groups["layers.2.norm.weight"] == groups["norm.weight"] == 3
    assert groups["head.weight"] > 3


def test_residual_stream_stays_float32_under_autocast() -> None:
    model, seen = small().eval(), []
    model.layers[-1].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.randn(1, 3, 32, 32)).isfinite().all()
    assert seen == [torch.float32]
