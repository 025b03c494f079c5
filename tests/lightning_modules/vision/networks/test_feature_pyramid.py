"""Four maps from one resolution."""

import pytest
import timm
import torch
from torch import nn

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.optimization import Optimizer, parameter_groups
from lightning_modules.vision import FeaturePyramid, VisionMamba, VMamba, timm_network


class Bare(Recorded, nn.Module):
    """A network without timm's methods."""


def vim(**options: object) -> VisionMamba:
    torch.manual_seed(0)
    given = {"img_size": (64, 96), "patch_size": 16, "dim": 16, "depth": 4, "num_classes": 5}
    return VisionMamba(**{**given, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("indices", [None, [2], [0, 1, 2, 3], [-4, -3, -2, -1]])
def test_maps_have_the_four_strides(indices: list[int] | None) -> None:
    pyramid = FeaturePyramid(vim(), indices, out_dim=8)
    maps = pyramid(torch.randn(2, 3, 64, 96))
    assert [m.shape for m in maps] == [(2, 8, 64 // s, 96 // s) for s in (4, 8, 16, 32)]
    assert pyramid.strides == [4, 8, 16, 32]
    sum(m.square().mean() for m in maps).backward()
    used = max(pyramid.indices)
    for name, parameter in pyramid.maps.named_parameters():
        assert parameter.grad is not None, name
    assert pyramid.network.layers[used].mixer.in_proj.weight.grad is not None


def test_each_map_reads_its_own_block() -> None:
    pyramid = FeaturePyramid(vim(), [0, 1, 2, 3], out_dim=8).eval()
    images = torch.randn(1, 3, 64, 96)
    before = pyramid(images)
    with torch.no_grad():
        pyramid.network.layers[3].mixer.out_proj.weight.zero_()
    after = pyramid(images)
    assert [bool(torch.equal(a, b)) for a, b in zip(before, after, strict=True)] == [True] * 3 + [
        False
    ]


def test_the_kept_map_is_that_of_the_block_where_convolutions_pass_it_on() -> None:
    network = vim().eval()
    images = torch.randn(1, 3, 64, 96)
    (expected,) = network.forward_intermediates(images, indices=1, intermediates_only=True)
    pyramid = FeaturePyramid(network, out_dim=16)
    seen: list[torch.Tensor] = []
    pyramid.maps[2][0].register_forward_hook(lambda *given: seen.append(given[2]))
    pyramid(images)
    assert torch.equal(seen[0], expected)


def test_timms_vit_has_a_pyramid_too() -> None:
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    network = timm_network("vit_tiny_patch16_224", img_size=64, options=options)
    maps = FeaturePyramid(network, out_dim=4)(torch.randn(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2]


def test_layer_decay_reaches_through_it() -> None:
    pyramid = FeaturePyramid(vim(depth=2), out_dim=8)
    layers = timm.models.group_parameters(pyramid, pyramid.group_matcher(), reverse=True)
    assert layers["network.pos_embed"] == 0
    assert layers["network.layers.0.mixer.D"] == 1
    assert layers["network.norm_f.weight"] == 2
    assert layers["maps.0.0.weight"] == 3
    groups = parameter_groups(pyramid, Optimizer(layer_decay=0.5))
    assert {group["lr_scale"] for group in groups} == {0.125, 0.25, 0.5, 1.0}


def test_a_checkpoint_could_rebuild_it() -> None:
    call = FeaturePyramid(vim(), [1], out_dim=8).init_call["init_args"]
    assert call["indices"] == [1]
    assert call["network"]["class_path"].endswith("VisionMamba")
    assert call["network"]["init_args"]["num_classes"] == 0


def test_wrong_blocks_and_networks_are_refused() -> None:
    with pytest.raises(SuiteError, match="one block for all"):
        FeaturePyramid(vim(), [0, 1])
    with pytest.raises(SuiteError, match="forward_intermediates"):
        FeaturePyramid(Bare())
    with torch.device("meta"), pytest.raises(SuiteError, match="pyramid already"):
        FeaturePyramid(VMamba(depths=(1, 1), dim=16))
