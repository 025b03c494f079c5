"""Vim against vectors made by running hustvl/Vim, and the promises of its timm methods."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.vision import VisionMamba
from lightning_modules.vision.networks.rotary_positions import rotate

FILES = (
    "vim_midcls_d2_e32_i32_p8",
    "vim_midcls_stride_d3_e48_i64_p16_s8",
    "vim_midcls_nodiv_unfused_d2_e32",
    "vim_headcls_layernorm_d2_e32",
    "vim_doublecls_d2_e32",
    "vim_rope_nocls_d2_e32",
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


@pytest.mark.parametrize("class_token", ["middle", "first", "double", "none"])
def test_intermediates_are_maps_without_the_class_token(class_token: str) -> None:
    model = small(class_token=class_token, img_size=(32, 48)).eval()
    images = torch.randn(2, 3, 32, 48)
    final, maps = model.forward_intermediates(images, indices=2, norm=True)
    assert [m.shape for m in maps] == [(2, 32, 4, 6)] * 2
    tokens, prefix = model.class_tokens.split(final)
    assert torch.equal(maps[-1], tokens.transpose(1, 2).unflatten(2, (4, 6)))
    assert prefix.shape[1] == {"none": 0, "double": 2}.get(class_token, 1)
    assert torch.allclose(final, model.forward_features(images), atol=1e-6)


def test_early_stop_gives_the_same_intermediates() -> None:
    model, images = small().eval(), torch.randn(1, 3, 32, 32)
    options = {"indices": [0, 1], "intermediates_only": True, "output_fmt": "NLC"}
    whole = model.forward_intermediates(images, **options)  # type: ignore[arg-type]
    early = model.forward_intermediates(images, stop_early=True, **options)  # type: ignore[arg-type]
    for one, other in zip(whole, early, strict=True):
        assert one.shape == (1, 16, 32)
        assert torch.equal(one, other)


@pytest.mark.parametrize("paired_layers", [False, True])
def test_gradient_checkpointing_changes_no_gradient_under_drop_path(paired_layers: bool) -> None:
    images, found = torch.randn(4, 3, 32, 32), []
    for enable in (False, True):
        model = small(
            depth=4, drop_path=0.5, grad_checkpointing=enable, paired_layers=paired_layers
        ).train()
        torch.manual_seed(3)
        logits = model(images)
        logits.square().sum().backward()
        found.append([logits, *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_checkpointed_blocks_run_again_in_the_backward_pass_alone() -> None:
    model, runs = small().train(), 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    for layer in model.layers:
        layer.register_forward_pre_hook(count)  # Recomputing may stop before the end.
    for enable, expected in ((False, 3), (True, 6)):
        model.set_grad_checkpointing(enable)
        runs = 0
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        assert runs == expected
    with torch.no_grad():
        runs = 0
        model(torch.randn(2, 3, 32, 32))
    assert runs == 3


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


def test_null_classes_wait_for_the_data_and_are_recorded() -> None:
    model = small(num_classes=None)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 32)
    model.reset_classifier(3)
    again = VisionMamba(**model.init_call["init_args"])
    assert again.state_dict()["head.weight"].shape == (3, 32)


def test_intermediates_are_the_mixers_output_and_not_the_residual_stream() -> None:
    model, seen = small().eval(), []
    model.layers[1].register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    images = torch.randn(1, 3, 32, 32)
    (patches, prefix), *_ = model.forward_intermediates(
        images, indices=[1], return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    hidden = seen[0]
    assert torch.equal(prefix, hidden[:, 8:9])  # row 16 // 2
    assert torch.equal(patches, torch.cat((hidden[:, :8], hidden[:, 9:]), dim=1))


@pytest.mark.parametrize("pool", [None, "mean", "last", "max", "all"])
def test_pools_without_class_token(pool: Any) -> None:
    model = small(class_token="none", pool=pool).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens, logits = model.forward_features(images), model(images)
    expected = {
        "last": model.head(tokens[:, -1]),
        "max": model.head(tokens).max(dim=1).values,
        "all": model.head(tokens),
    }.get(pool, model.head(tokens.mean(1)))
    assert torch.equal(logits, expected)


def test_a_pool_beside_a_class_token_is_refused() -> None:
    with pytest.raises(SuiteError, match="class_token: none"):
        small(pool="mean")


def test_double_class_tokens_are_averaged_and_resized() -> None:
    old, new = small(class_token="double").eval(), small(class_token="double", img_size=64)
    tokens = old.forward_features(torch.randn(2, 3, 32, 32))
    features = old.forward_head(tokens, pre_logits=True)
    assert torch.allclose(features, (tokens[:, 0] + tokens[:, 17]) / 2)
    assert old.no_weight_decay() == {"pos_embed", "cls_token_head", "cls_token_tail"}
    new.load_state_dict(new.adapt_state_dict(old.state_dict()))
    assert torch.equal(new.pos_embed[0, -1], old.pos_embed[0, -1])


# ---- layers in pairs ----------------------------------------------------------------------------


def test_paired_layers_read_in_both_directions_and_add_up() -> None:
    model = small(depth=4, paired_layers=True, bimamba_type="none", drop_path=0.0).eval()
    images = torch.randn(2, 3, 32, 32)
    hidden, residual = model._embed(images), None
    for forward, backward in (model.layers[:2], model.layers[2:]):
        back = None if residual is None else residual.flip(1)
        ahead, behind = forward(hidden, residual), backward(hidden.flip(1), back)
        hidden, residual = (one + other.flip(1) for one, other in zip(ahead, behind, strict=True))
    assert torch.allclose(model.forward_features(images), model.norm_f(residual + hidden))
    assert model.depth == 2 and len(model.feature_info) == 2


def test_the_last_token_hears_of_the_first_only_through_the_pairs() -> None:
    options = {"bimamba_type": "none", "class_token": "none", "pool": "last", "depth": 2}
    for paired, heard in ((False, False), (True, True)):
        model = small(paired_layers=paired, **options).eval()
        images = torch.randn(1, 3, 32, 32, requires_grad=True)
        model.forward_features(images)[:, 0].sum().backward()
        assert bool(images.grad[..., -1, -1].abs().sum() > 0) is heard  # type: ignore[index]


def test_both_layers_of_a_pair_learn_equally_fast() -> None:
    from timm.models import group_parameters

    model = small(depth=4, paired_layers=True)
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    found = [layers[f"layers.{i}.mixer.D"] for i in range(4)]
    assert found == [1, 1, 2, 2] and layers["norm_f.weight"] == 2


def test_pairs_need_an_even_depth() -> None:
    with pytest.raises(SuiteError, match="even depth"):
        small(depth=3, paired_layers=True)


# ---- rotary positions ---------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", ["middle", "first", "double", "none"])
def test_rotary_positions_leave_class_tokens_alone(class_token: Any) -> None:
    model = small(rope="hidden", class_token=class_token)
    cos, sin = model._rotation((4, 4), None)  # type: ignore[misc]
    rows = model.class_tokens.rows(16)
    assert torch.equal(cos[rows], torch.ones(len(rows), 32))
    assert torch.equal(sin[rows], torch.zeros(len(rows), 32))
    patches = model.class_tokens.split(cos[None])[0]
    assert torch.equal(patches[0], model.rope.freqs_cos)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_rotary_positions_alone_tell_places_apart() -> None:
    images = torch.randn(1, 3, 32, 32)
    shifted = images.roll((8, 8), dims=(2, 3))
    for rope, told in (("none", False), ("hidden_and_residual", True)):
        model = small(rope=rope, pos_embed=False, class_token="none", depth=2).eval()
        assert "pos_embed" not in model.state_dict() and model.no_weight_decay() == set()
        # Without positions, scans still know the order: compare the first token's mixer input.
        stream = model._start(images), model._start(shifted)
        hidden = [s.hidden if s.rotation is None else rotate(s.hidden, s.rotation) for s in stream]
        same = torch.allclose(hidden[0][:, 0], hidden[1][:, 5], atol=1e-6)
        assert same is not told


def test_rotary_positions_follow_the_image_size() -> None:
    images = torch.randn(2, 3, 48, 40)
    dynamic = small(rope="hidden", dynamic_img_size=True).eval()
    resized = small(rope="hidden").eval()
    resized.set_input_size((48, 40))
    assert torch.allclose(dynamic(images), resized(images), atol=1e-6)
    again = VisionMamba(**resized.init_call["init_args"])
    again.load_state_dict(resized.state_dict())
    fitted = again.adapt_state_dict(small(rope="hidden").state_dict())
    again.load_state_dict(fitted)


# ---- random orders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"random_class_token": True, "class_token": "first"},
        {"shuffle_tokens": True},
        {"reverse_tokens": 1.0, "class_token": "first"},
        {"shuffle_tokens": True, "class_token": "double", "reverse_tokens": 0.5},
        {"shuffle_tokens": True, "class_token": "none", "rope": "hidden"},
    ],
)
def test_random_orders_are_of_training_only(options: dict[str, Any]) -> None:
    images = torch.randn(2, 3, 32, 32)
    usual = {key: options[key] for key in options.keys() & {"class_token", "rope"}}
    model, plain = small(**options, drop_path=0.0), small(**usual, drop_path=0.0)
    assert torch.equal(model.eval()(images), plain.eval()(images))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model.train()(images))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], plain.train()(images), atol=1e-7)
    if "reverse_tokens" not in options:
        assert not torch.allclose(found[0], found[2], atol=1e-7)


@pytest.mark.parametrize("class_token", ["middle", "first", "double", "none"])
@pytest.mark.parametrize("rope", ["none", "hidden"])
def test_tokens_come_back_to_their_places(class_token: Any, rope: Any) -> None:
    options = {"class_token": class_token, "rope": rope, "drop_path": 0.0}
    model = small(shuffle_tokens=True, reverse_tokens=0.5, **options).train()
    with torch.no_grad():
        for layer in model.layers:
            layer.mixer.out_proj.weight.zero_()  # Nothing is mixed: only places are left.
    images = torch.randn(2, 3, 32, 32)
    tokens, maps = model.forward_intermediates(images, norm=True)
    assert torch.allclose(tokens, model.eval().forward_features(images), atol=1e-5)
    assert torch.allclose(maps[-1].flatten(2).mT, model.patch_tokens(tokens), atol=1e-5)


def test_a_reversed_sequence_equals_the_reverse_of_an_image_turned_around() -> None:
    torch.manual_seed(0)
    options = {"class_token": "none", "pos_embed": False, "bimamba_type": "none", "patch_size": 1}
    model = small(reverse_tokens=1.0, drop_path=0.0, img_size=3, **options)
    images = torch.randn(2, 3, 3, 3)
    turned = images.flip(2, 3)
    reversed_ = model.train().forward_features(images)
    assert torch.allclose(reversed_, model.eval().forward_features(turned).flip(1), atol=1e-6)


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(SuiteError, match="class_token: first"):
        small(random_class_token=True)
    with pytest.raises(SuiteError, match="0..1"):
        small(reverse_tokens=-1.0)
