"""VMamba against vectors made by running MzeroMiko/VMamba, and the promises of its timm methods."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from blocks.errors import SuiteError
from lightning_modules.optimization import Optimizer, parameter_groups
from lightning_modules.vision import VMamba
from tests.lightning_modules.vision.networks.vectors import read, relative_error

FIRST = {
    "d_state": 4,
    "ssm_ratio": 2.0,
    "conv_bias": True,
    "forward_type": "v0",
    "mlp_ratio": 0.0,
    "stem": "v1",
    "downsample": "v1",
}
CURRENT: dict[str, Any] = {}
FAMILIES = pytest.mark.parametrize("family", [FIRST, CURRENT], ids=["first", "current"])


def small(**options: Any) -> VMamba:
    torch.manual_seed(0)
    return VMamba(**{"depths": (1, 2, 1), "dim": 8, "num_classes": 5, **options})


@pytest.mark.parametrize("name", ["vssm_v0_tinycfg", "vssm_v2_tinycfg"])
def test_equals_upstream_in_outputs_and_gradients(golden: Path, name: str) -> None:
    config, tensors = read(golden / "vision" / f"{name}.safetensors")
    model = VMamba.from_upstream(config).eval()
    model.load_state_dict({k[3:]: v for k, v in tensors.items() if k.startswith("sd.")})
    x = tensors["in.x"].requires_grad_()
    logits = model(x)
    (logits * tensors["in.cotangent"]).sum().backward()

    assert torch.allclose(logits, tensors["out.y"], atol=1e-5)
    own = dict(model.named_parameters()) | {"x": x}
    gradients = {k[5:]: v for k, v in tensors.items() if k.startswith("grad.")}
    assert len(gradients) > 5
    for key, expected in gradients.items():
        assert relative_error(own[key].grad, expected) < 1e-4, key


def test_drop_path_rises_evenly_over_all_blocks() -> None:
    model = small(depths=(2, 1, 3), drop_path=0.5)
    rates = [block.drop_path.p for stage in model.layers for block in stage["blocks"]]
    assert rates == pytest.approx(torch.linspace(0, 0.5, 6).tolist())


def test_starts_as_upstream_does() -> None:
    model = small(dim=64, **FIRST, num_classes=50)
    assert model.classifier.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.classifier.head.bias.abs().max() == 0
    scan = model.layers[0]["blocks"][0].op
    assert scan.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.allclose(scan.A_logs.exp(), torch.arange(1.0, 5).expand(512, 4))
    assert torch.equal(scan.Ds, torch.ones(512))
    for steps in torch.nn.functional.softplus(scan.dt_projs_bias):
        assert steps.min() >= 9e-5 and steps.max() <= 0.101
    bound = 4**-0.5  # uniform in +-1 / sqrt(dt_rank)
    assert 0.9 * bound < scan.dt_projs_weight.abs().max() <= bound


@FAMILIES
@pytest.mark.parametrize("size", [(32, 32), (50, 37), (20, 100), (4, 4), (5, 16)])
def test_takes_images_of_any_size(family: dict[str, Any], size: tuple[int, int]) -> None:
    model = small(**family).eval()
    images = torch.randn(2, 3, *size)
    assert model(images).shape == (2, 5)
    side = [s // 4 if family else -(-s // 4) for s in size]
    for grid in model.forward_intermediates(images, output_fmt="NHWC", intermediates_only=True):
        assert list(grid.shape[1:3]) == side
        side = [-(-s // 2) for s in side]


def test_refuses_what_is_no_image_by_name() -> None:
    for shape in ((1, 4, 32, 32), (3, 32, 32), (1, 3, 32, 3)):
        with pytest.raises(SuiteError, match="of at least 4 pixels"):
            small()(torch.randn(shape))


@FAMILIES
def test_intermediates_are_a_pyramid(family: dict[str, Any]) -> None:
    model, images = small(**family).eval(), torch.randn(2, 3, 64, 32)
    final, maps = model.forward_intermediates(images, norm=True)
    assert [m.shape[1:] for m in maps] == [(8, 16, 8), (16, 8, 4), (32, 4, 2)]
    assert [info["num_chs"] for info in model.feature_info] == [8, 16, 32]
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16]
    assert torch.equal(final, model.forward_features(images))
    assert torch.equal(maps[-1].permute(0, 2, 3, 1), final)
    raw = model.forward_intermediates(images, indices=1, intermediates_only=True)
    assert torch.equal(model.classifier.norm(raw[0].permute(0, 2, 3, 1)), final)


def test_early_stop_gives_the_same_intermediates_and_runs_no_further() -> None:
    model, images = small().eval(), torch.randn(1, 3, 32, 32)
    _, whole = model.forward_intermediates(images, indices=[-2, 0])
    calls: list[int] = []
    for index, stage in enumerate(model.layers):
        stage["blocks"][0].register_forward_pre_hook(lambda *_, i=index: calls.append(i))
    last, early = model.forward_intermediates(images, indices=[-2, 0], stop_early=True)
    assert calls == [0, 1]
    assert all(torch.equal(a, b) for a, b in zip(whole, early, strict=True))
    assert torch.equal(last.permute(0, 3, 1, 2), early[-1])


def test_gradient_checkpointing_changes_no_gradient() -> None:
    images, gradients = torch.randn(2, 3, 32, 32), []
    for enable in (False, True):
        model = small(grad_checkpointing=enable).train()
        torch.manual_seed(1)  # Dropped paths are the same when a block is run again.
        model(images).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_reset_classifier_replaces_only_the_head() -> None:
    model, images = small().eval(), torch.randn(1, 3, 32, 32)
    before = model.classifier.norm
    model.reset_classifier(3)
    assert model(images).shape == (1, 3)
    assert model.classifier.norm is before
    assert model.get_classifier() is model.classifier.head
    model.reset_classifier(0)
    assert torch.equal(model(images), model.forward_head(model.forward_features(images), True))


def test_null_classes_wait_for_the_data_and_are_recorded() -> None:
    model = small(num_classes=None)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 32)
    model.reset_classifier(3)
    again = VMamba(**model.init_call["init_args"])
    again.load_state_dict(model.state_dict())
    assert again.classifier.head.out_features == 3


def test_decay_follows_the_published_rule_or_spares_the_scan() -> None:
    model = small()

    def decaying(decay_ssm_params: bool) -> set[str]:
        groups = parameter_groups(model, Optimizer(decay_ssm_params=decay_ssm_params))
        chosen = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
        return {name for name, p in model.named_parameters() if id(p) in chosen}

    # Upstream: everything but vectors and names that end in .bias.
    published = {n for n, p in model.named_parameters() if p.ndim > 1 and not n.endswith(".bias")}
    assert decaying(True) == published
    assert decaying(False) == published - model.no_weight_decay()
    assert len(model.no_weight_decay()) == 3 * 4


@FAMILIES
def test_layer_wise_learning_rates_group_stem_blocks_and_head(family: dict[str, Any]) -> None:
    model = small(**family)
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    depth = {"layers.0.blocks.0": 1, "layers.0.downsample": 1, "layers.1.blocks.1": 3}
    for prefix, expected in (depth | {"patch_embed": 0, "classifier.norm": 4}).items():
        found = {group for name, group in groups.items() if name.startswith(prefix)}
        assert found == {expected}, prefix
    assert groups["classifier.head.weight"] > 4
    coarse = timm.models.group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert coarse["layers.1.blocks.0.norm.weight"] == coarse["layers.1.blocks.1.norm.weight"] == 2


@FAMILIES
def test_residual_stream_stays_float32_among_16_bit_layers(family: dict[str, Any]) -> None:
    seen: list[torch.dtype] = []
    images = torch.randn(1, 3, 32, 32)
    model = small(**family).eval()
    expected = model(images)
    for stage in model.layers:
        stage["blocks"][-1].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(images)
    narrow = model.bfloat16()(images.bfloat16())
    assert seen == [torch.float32] * 6
    assert narrow.dtype == torch.bfloat16
    for logits in (mixed, narrow):
        assert torch.allclose(logits.float(), expected, atol=0.02)


@FAMILIES
def test_compiles_to_one_graph_and_exports(family: dict[str, Any]) -> None:
    model, images = small(depths=(1, 1), **family).eval(), torch.randn(2, 3, 40, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    exported = torch.export.export(model, (images,)).module()
    for version in (compiled, exported):
        assert torch.allclose(version(images), model(images), atol=1e-6)


def test_upstream_variants_without_weights_are_refused_by_name() -> None:
    current = {"downsample_version": "v3", "patchembed_version": "v2"}
    for option, value in (("posembed", True), ("dims", [96, 96, 96, 96]), ("norm_layer", "bn")):
        with pytest.raises(SuiteError, match=option):
            VMamba.from_upstream({**current, option: value})
    with pytest.raises(SuiteError, match="downsample_version"):
        VMamba.from_upstream({})  # upstream's default is v2
    with pytest.raises(SuiteError, match="did you mean 'depths'"):
        VMamba.from_upstream({**current, "depth": 3})


def test_upstream_widths_may_be_a_list() -> None:
    config = {"dims": [8, 16], "depths": [1, 1], "downsample_version": "v3"}
    assert VMamba.from_upstream(config).num_features == 16
