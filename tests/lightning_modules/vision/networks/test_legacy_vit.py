"""The 768 x 8 ViT: keys and sizes of its file, and its formula beside timm's blocks."""

import pytest
import timm
import torch

from lightning_modules.vision import LegacyViT


def small(**options: object) -> LegacyViT:
    torch.manual_seed(0)
    given = {"img_size": 32, "patch_size": 8, "dim": 32, "depth": 2, "num_heads": 4}
    return LegacyViT(**{**given, "num_classes": 5, **options})  # type: ignore[arg-type]


def parameters(img_size: int, classes: int, width: int = 768, depth: int = 8) -> int:
    attention = 3 * width * width + width * width + width
    mlp = 2 * width * 3 * width + 3 * width + width
    block = attention + mlp + 2 * 2 * width
    tokens = (img_size // 16) ** 2 + 1
    embedding = 3 * 16 * 16 * width + width + width + tokens * width
    return embedding + depth * block + 2 * width + width * classes + classes


@pytest.mark.parametrize(("img_size", "classes"), [(256, 1000), (224, 1000), (256, 701)])
def test_its_size_is_that_of_its_formula(img_size: int, classes: int) -> None:
    with torch.device("meta"):
        model = LegacyViT(img_size=img_size, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == parameters(img_size, classes)
    assert parameters(224, 1000) == pytest.approx(48.75e6, rel=1e-3)  # as timm's table had it


def test_keys_are_those_of_timms_old_file() -> None:
    with torch.device("meta"):
        keys = set(LegacyViT().state_dict())
    block = ("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias")
    block += ("norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias")
    block += ("mlp.fc2.weight", "mlp.fc2.bias")
    expected = {f"blocks.{i}.{name}" for i in range(8) for name in block}
    expected |= {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    expected |= {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert keys == expected


def test_equals_timms_vit_where_products_have_the_models_scale() -> None:
    model = small().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_ratio=3.0,
        qkv_bias=False, num_classes=5,
    ).eval()  # fmt: skip
    state = model.state_dict()
    for index, block in enumerate(theirs.blocks):
        # A head's scale is 8 ** -0.5 there: the queries make up for it.
        block.attn.fused_attn = False
        qkv = state[f"blocks.{index}.attn.qkv.weight"].clone()
        qkv[:32] *= (8 / 32) ** 0.5
        state[f"blocks.{index}.attn.qkv.weight"] = qkv
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(images), theirs(images), atol=1e-5)


def test_weights_of_224_serve_at_256() -> None:
    old, new = small(img_size=64), small(img_size=96)
    new.load_state_dict(new.adapt_state_dict(old.state_dict()))
    assert torch.equal(new.pos_embed[0, 0], old.pos_embed[0, 0])
    assert new(torch.randn(1, 3, 96, 96)).shape == (1, 5)


def test_gradient_checkpointing_changes_no_gradient_under_drop_path() -> None:
    images, found = torch.randn(4, 3, 32, 32), []
    for enable in (False, True):
        model = small(drop_path=0.5, grad_checkpointing=enable).train()
        torch.manual_seed(3)
        model(images).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
