"""The encoder of gated attention behaves as Vim's other rivals do."""

import pytest
import timm
import torch

from lightning_modules.vision import GatedAttentionEncoder


def small(**options: object) -> GatedAttentionEncoder:
    torch.manual_seed(0)
    given = {"img_size": 32, "patch_size": 8, "dim": 32, "depth": 2, "num_classes": 5}
    return GatedAttentionEncoder(**{**given, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("class_token", ["first", "middle", "double", "none"])
def test_maps_leave_the_class_token_out(class_token: str) -> None:
    model = small(class_token=class_token, img_size=(32, 48)).eval()
    images = torch.randn(2, 3, 32, 48)
    final, maps = model.forward_intermediates(images, norm=True)
    assert [m.shape for m in maps] == [(2, 32, 4, 6)] * 2
    assert torch.equal(maps[-1].flatten(2).mT, model.patch_tokens(final))
    assert model(images).shape == (2, 5)


def test_written_out_attention_gives_the_same_numbers() -> None:
    images = torch.randn(2, 3, 32, 32)
    fused, plain = small(fused=True).eval(), small(fused=False).eval()
    assert torch.allclose(fused(images), plain(images), atol=1e-6)


def test_sizes_follow_from_the_options() -> None:
    def count(**options: object) -> int:
        return sum(p.numel() for p in small(**options).parameters())

    base = 32 * 3 * 64 + 32 + 32 + 17 * 32 + 2 * 32 + 5 * 33
    assert count() == base + 2 * (5 * 32 * 32 + 2 * 32)
    assert count(expand=2.0) == base + 2 * (10 * 32 * 32 + 2 * 32)
    mlp = 2 * 32 * 64 + 64 + 32 + 2 * 32
    assert count(mlp_ratio=2.0) == base + 2 * (5 * 32 * 32 + 2 * 32 + mlp)


def test_layers_are_told_to_layer_decay() -> None:
    model = small()
    layers = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert layers["cls_token"] == layers["patch_embed.proj.bias"] == 0
    assert layers["blocks.1.attn.in_proj.weight"] == layers["norm.weight"] == 2
    assert layers["head.weight"] == 3
