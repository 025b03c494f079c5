"""Grown networks compute what the shallow ones did, and learn with their new blocks."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from blocks.errors import SuiteError
from lightning_modules.growth import blocks_of, grow
from lightning_modules.vision import IsotropicSS2D, VisionMamba, VMamba, timm_network
from lightning_modules.vision.networks.gated_attention_encoder import GatedAttentionEncoder
from lightning_modules.vision.networks.legacy_vit import LegacyViT

Maker = Callable[[int], nn.Module]


def vim(depth: int) -> nn.Module:
    return VisionMamba(
        img_size=16, patch_size=4, dim=8, depth=depth, num_classes=3, drop_path=0.2, d_state=2
    )


def layer_scaled(depth: int) -> nn.Module:
    return VisionMamba(
        img_size=16,
        patch_size=4,
        dim=8,
        depth=depth,
        num_classes=3,
        norm="layer",
        init_layer_scale=0.1,
        class_token="none",
        d_state=2,
    )


def ss2d(depth: int) -> nn.Module:
    return IsotropicSS2D(
        img_size=16, patch_size=4, dim=8, depth=depth, num_classes=3, mlp_ratio=2.0, d_state=2
    )


def vit(depth: int) -> nn.Module:
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "num_heads": 2, "depth": depth}
    return timm_network("vit_tiny_patch16_224", num_classes=3, options=options)


def legacy(depth: int) -> nn.Module:
    return LegacyViT(img_size=16, patch_size=4, dim=8, depth=depth, num_heads=2, num_classes=3)


def gated(depth: int) -> nn.Module:
    return GatedAttentionEncoder(img_size=16, patch_size=4, dim=8, depth=depth, num_classes=3)


NETWORKS = [vim, layer_scaled, ss2d, vit, legacy, gated]


@pytest.mark.parametrize("make", NETWORKS)
def test_outputs_stay_and_new_blocks_learn(make: Maker) -> None:
    torch.manual_seed(0)
    network, images = make(2), torch.randn(2, 3, 16, 16)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    before = network.eval()(images)
    old = dict(network.named_parameters())
    grow(network, 5)
    assert (network(images) - before).abs().max() < 1e-6
    assert all(dict(network.named_parameters())[name] is p for name, p in old.items())
    network(images).square().sum().backward()
    new = [p for name, p in network.named_parameters() if name not in old]
    assert sum(float(p.grad.abs().sum()) for p in new if p.grad is not None) > 0
    # One step later every new parameter has a gradient.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.1 * parameter.grad
            parameter.grad = None
    network(images).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("make", NETWORKS)
def test_a_grown_network_is_recorded_as_one_of_its_depth(make: Maker) -> None:
    network, fresh = make(2), make(4)
    grow(network, 4)
    assert network.init_call == fresh.init_call
    assert [n for n, _ in network.named_parameters()] == [n for n, _ in fresh.named_parameters()]
    assert network.training and len(network.feature_info) == 4
    fresh.load_state_dict(network.state_dict())
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(network.eval()(images), fresh.eval()(images))


def test_drop_path_follows_the_new_depth() -> None:
    network, fresh = vim(2), vim(4)
    grow(network, 4)
    rates = [layer.drop_path.p for layer in fresh.layers] + [fresh.drop_path.p]
    assert [layer.drop_path.p for layer in network.layers] + [network.drop_path.p] == rates


def test_growing_keeps_type_and_mode() -> None:
    network = vim(1).double().eval()
    grow(network, 2)
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    assert not any(module.training for module in network.modules())


def test_networks_that_cannot_grow_are_refused() -> None:
    with pytest.raises(SuiteError, match="found: VMamba"):
        blocks_of(VMamba(depths=(1, 1), dim=8, num_classes=3))
    with pytest.raises(SuiteError, match="found: 1"):
        grow(vim(2), 1)
    with pytest.raises(SuiteError, match="found: ResNet"):
        blocks_of(timm_network("resnet18", num_classes=3))
