"""CLIP's trunk against timm's, its loading, its freezing, and sampling at pixels."""

import pytest
import torch
import torch.nn.functional as F

from blocks.errors import SuiteError
from lightning_modules.scannet.networks.clip_trunk import CLIPTrunk, sample_patches


def small(**options: object) -> CLIPTrunk:
    torch.manual_seed(0)
    sizes = {"dim": 32, "depth": 3, "num_heads": 2, "patch_size": 16, "grid": 4, "frozen_blocks": 0}
    return CLIPTrunk(**(sizes | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("quick", [False, True])
def test_it_equals_timms_clip_with_the_same_weights(quick: bool) -> None:
    import timm
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    name = "vit_base_patch16_clip_quickgelu_224" if quick else "vit_base_patch16_clip_224"
    peer = timm.create_model(
        name, img_size=64, embed_dim=32, depth=3, num_heads=2, dynamic_img_size=True, num_classes=0
    )
    assert isinstance(peer, VisionTransformer)
    trunk = small(activation="quick_gelu" if quick else "gelu").eval()
    state = {f"visual.{key}": value for key, value in trunk.state_dict().items()}
    state |= {"visual.ln_post.weight": torch.ones(32), "visual.ln_post.bias": torch.zeros(32)}
    state |= {"visual.proj": torch.zeros(32, 8)}
    peer.load_state_dict(checkpoint_filter_fn(state, peer), strict=False)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = peer.eval().forward_intermediates(image, [2])[1][0].permute(0, 2, 3, 1)
        torch.testing.assert_close(trunk(image), expected, atol=1e-5, rtol=1e-4)


def test_files_of_open_clip_lose_what_is_not_used() -> None:
    whole = small(depth=5)
    state = {f"visual.{key}": value for key, value in whole.state_dict().items()}
    state |= {"visual.ln_post.weight": torch.ones(32), "visual.proj": torch.ones(32, 8)}
    state |= {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_scale": torch.ones(())}
    trunk = small(depth=3)
    adapted = trunk.adapt_state_dict(state)
    trunk.load_state_dict(adapted)
    assert torch.equal(adapted["conv1.weight"], whole.conv1.weight)
    assert trunk.adapt_state_dict(trunk.state_dict()).keys() == trunk.state_dict().keys()


def test_frozen_blocks_keep_no_graph_and_the_others_learn() -> None:
    trunk = small(frozen_blocks=2)
    frozen = {name for name, p in trunk.named_parameters() if not p.requires_grad}
    assert {"conv1.weight", "positional_embedding", "ln_pre.weight"} <= frozen
    assert all(f"resblocks.{i}." in " ".join(frozen) for i in (0, 1))
    seen = []
    trunk.blocks[1].register_forward_hook(lambda *args: seen.append(args[2].requires_grad))
    trunk(torch.randn(1, 3, 64, 64)).sum().backward()
    assert seen == [False]
    assert all(p.grad is not None for p in trunk.blocks[2].parameters())
    assert not any(name.startswith("transformer.resblocks.2.") for name in frozen)
    with pytest.raises(SuiteError, match="frozen_blocks in 0..3"):
        small(frozen_blocks=4)


def test_an_image_of_odd_size_is_refused() -> None:
    with pytest.raises(SuiteError, match="divisible by the patch"):
        small()(torch.randn(1, 3, 60, 64))


def test_sampling_equals_grid_sample() -> None:
    patches, size = torch.randn(2, 14, 19, 5), torch.tensor([[640, 480], [320, 240]])
    sample = torch.tensor([0] * 30 + [1] * 20)
    uv = torch.rand(50, 2) * (size[sample] - 1)
    uv[:4] = torch.tensor([[0.0, 0], [639, 479], [-30, 500], [319.5, 239.5]])
    found = sample_patches(patches, uv, size, sample)
    for i in range(2):
        here = sample == i
        grid = (2 * (uv[here] + 0.5) / size[i] - 1).view(1, 1, -1, 2)
        maps = patches[i : i + 1].permute(0, 3, 1, 2)
        expected = F.grid_sample(maps, grid, "bilinear", "border", align_corners=False)
        torch.testing.assert_close(found[here], expected[0, :, 0].T, atol=1e-5, rtol=1e-4)


def test_half_precision_blurs_features_and_not_places() -> None:
    patches = torch.randn(1, 30, 40, 3)
    uv, sample = torch.rand(200, 2) * torch.tensor([639.0, 479.0]), torch.zeros(200).long()
    given = uv, torch.tensor([[640, 480]]), sample
    found = sample_patches(patches.bfloat16(), *given)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), sample_patches(patches, *given), atol=0.05, rtol=0)
