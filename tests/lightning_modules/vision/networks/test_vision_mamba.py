"""Vim against vectors made by running hustvl/Vim, and the promises of its timm methods."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.vision import VisionMamba

FILES = (
    "vim_midcls_d2_e32_i32_p8",
    "vim_midcls_stride_d3_e48_i64_p16_s8",
    "vim_midcls_nodiv_unfused_d2_e32",
    "vim_headcls_layernorm_d2_e32",
    "vim_nocls_meanpool_d2_e32",
    "vim_bimambav1_d2_e32",
    "vim_unidir_none_d2_e32",
    "vim_layerscale_nonsquareclasses_d4_e32",
)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def small(**options: object) -> VisionMamba:
    torch.manual_seed(0)
    given = {"img_size": 32, "patch_size": 8, "dim": 32, "depth": 3, "num_classes": 5}
    return VisionMamba(**{**given, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FILES)
def test_equals_upstream_in_outputs_and_gradients(golden: Path, name: str) -> None:
    path = golden / "vision" / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    model = VisionMamba.from_upstream(json.loads(metadata["config"])).eval()
    assert sum(p.numel() for p in model.parameters()) == int(metadata["num_params"])
    state = {k.removeprefix("sd."): v for k, v in tensors.items() if k.startswith("sd.")}
    model.load_state_dict(state, strict=True)

    tokens = model.forward_features(tensors["in.x"])
    features = model.forward_head(tokens, pre_logits=True)
    logits = model(tensors["in.x"])
    loss = torch.nn.functional.cross_entropy(logits, tensors["in.y"])
    loss.backward()

    assert torch.allclose(features, tensors["out.features"], atol=1e-5)
    assert torch.allclose(logits, tensors["out.logits"], atol=1e-5)
    assert torch.allclose(loss, tensors["out.loss"].squeeze(), atol=1e-5)
    own = dict(model.named_parameters())
    gradients = {k.removeprefix("grad."): v for k, v in tensors.items() if k.startswith("grad.")}
    assert gradients
    for key, expected in gradients.items():
        assert relative_error(own[key].grad, expected) < 1e-4, key  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "dim", "stride", "img_size", "parameters"),
    [
        ("tiny", 192, 16, 224, 7_148_008),
        ("tiny, stride 8", 192, 8, 224, 7_250_344),
        ("small", 384, 16, 224, 25_796_584),
        ("small, stride 8", 384, 8, 224, 26_001_256),
        ("base", 768, 16, 224, 97_598_440),
        ("tiny at 384", 192, 16, 384, 7_220_968),
    ],
)
def test_has_the_published_number_of_parameters(
    size: str, dim: int, stride: int, img_size: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = VisionMamba(dim=dim, stride=stride, img_size=img_size)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 415


def test_drop_path_rates_are_those_of_upstream(golden: Path) -> None:
    for case in json.loads((golden / "vision" / "vim_drop_path.json").read_text()):
        model = small(depth=case["depth"], drop_path=case["rate"], dim=16)
        rates = [layer.drop_path.p for layer in model.layers]
        assert rates == pytest.approx(case["per_block_prob_applied_to_previous_output"], abs=1e-6)
        assert model.drop_path.p == pytest.approx(case["final_prob"])


def test_starts_as_upstream_does() -> None:
    model = small(dim=64, depth=4)
    for layer in model.layers:
        mixer = layer.mixer
        assert torch.equal(mixer.dt_proj_b.bias, torch.zeros_like(mixer.dt_proj_b.bias))
        assert mixer.dt_proj.bias.max() < -2.2
        assert mixer.out_proj.weight.abs().max() <= 1 / 128**0.5 / 2 + 1e-6
    assert model.head.bias.abs().max() == 0
    assert model.patch_embed.proj.bias.abs().max() == 0
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_matched_start_gives_both_directions_the_same_range() -> None:
    mixer = small(backward_dt_init="matched").layers[0].mixer
    for projection in (mixer.dt_proj, mixer.dt_proj_b):
        step = torch.nn.functional.softplus(projection.bias)
        assert step.min() >= 9e-5 and step.max() <= 0.101


def test_takes_images_of_any_aspect_and_stride() -> None:
    model = small(img_size=(24, 40), patch_size=8, stride=4)
    assert model.patch_embed.grid == (5, 9)
    assert model(torch.randn(2, 3, 24, 40)).shape == (2, 5)


def test_refuses_an_image_of_another_size_by_name() -> None:
    with pytest.raises(SuiteError, match="dynamic_img_size"):
        small()(torch.randn(1, 3, 40, 40))


def test_dynamic_image_size_equals_a_model_set_to_that_size() -> None:
    images = torch.randn(2, 3, 48, 40)
    dynamic = small(dynamic_img_size=True).eval()
    resized = small().eval()
    resized.set_input_size((48, 40))
    assert resized.pos_embed.shape == (1, 31, 32)
    assert torch.allclose(dynamic(images), resized(images), atol=1e-6)


def test_weights_of_another_size_keep_the_class_token_in_the_middle() -> None:
    old, new = small(img_size=32), small(img_size=64)
    state = new.adapt_state_dict(old.state_dict())
    new.load_state_dict(state)
    assert torch.equal(new.pos_embed[0, 32], old.pos_embed[0, 8])


def test_upstream_resize_takes_row_zero_for_the_class_token() -> None:
    old, new = small(img_size=32), small(img_size=64, pos_embed_resize="upstream")
    state = new.adapt_state_dict(old.state_dict())
    assert torch.equal(state["pos_embed"][0, 0], old.pos_embed[0, 0])


def test_non_square_weights_need_their_grid() -> None:
    old, new = small(img_size=(32, 64)), small(img_size=32)
    with pytest.raises(SuiteError, match="grid="):
        new.adapt_state_dict({**old.state_dict()})
    assert new.adapt_state_dict(old.state_dict(), grid=(4, 8))["pos_embed"].shape == (1, 17, 32)


@pytest.mark.parametrize("class_token", ["middle", "first", "none"])
def test_intermediates_are_maps_without_the_class_token(class_token: str) -> None:
    model = small(class_token=class_token, img_size=(32, 48)).eval()
    images = torch.randn(2, 3, 32, 48)
    final, maps = model.forward_intermediates(images, indices=2, norm=True)
    assert [m.shape for m in maps] == [(2, 32, 4, 6)] * 2
    tokens, prefix = model._split_class_token(final)
    assert torch.equal(maps[-1], tokens.transpose(1, 2).unflatten(2, (4, 6)))
    assert prefix.shape[1] == (class_token != "none")
    assert torch.allclose(final, model.forward_features(images), atol=1e-6)


def test_early_stop_gives_the_same_intermediates() -> None:
    model, images = small().eval(), torch.randn(1, 3, 32, 32)
    options = {"indices": [0, 1], "intermediates_only": True, "output_fmt": "NLC"}
    whole = model.forward_intermediates(images, **options)  # type: ignore[arg-type]
    early = model.forward_intermediates(images, stop_early=True, **options)  # type: ignore[arg-type]
    for one, other in zip(whole, early, strict=True):
        assert one.shape == (1, 16, 32)
        assert torch.equal(one, other)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    images, gradients = torch.randn(2, 3, 32, 32), []
    for enable in (False, True):
        model = small().train()
        model.set_grad_checkpointing(enable)
        model(images).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_reset_classifier_replaces_only_the_head() -> None:
    model = small()
    before = model.layers[0].mixer.in_proj.weight.clone()
    model.reset_classifier(3)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    assert torch.equal(before, model.layers[0].mixer.in_proj.weight)
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 32)


def test_residual_stream_stays_float32_under_autocast() -> None:
    model, seen = small().eval(), []
    model.layers[-1].register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(1, 3, 32, 32))
    hidden, residual = seen[0]
    assert hidden.dtype == torch.bfloat16
    assert residual.dtype == torch.float32
    assert logits.isfinite().all()


def test_upstream_variants_without_weights_are_refused_by_name() -> None:
    with pytest.raises(SuiteError, match="if_rope"):
        VisionMamba.from_upstream({"if_rope": True})
    with pytest.raises(SuiteError, match="embed_dim"):
        VisionMamba.from_upstream({"embed_dims": 192})


def test_null_classes_wait_for_the_data_and_are_recorded() -> None:
    model = small(num_classes=None)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 32)
    model.reset_classifier(3)
    again = VisionMamba(**model.init_call["init_args"])
    assert again.state_dict()["head.weight"].shape == (3, 32)
