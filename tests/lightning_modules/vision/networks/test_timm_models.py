"""Vim through timm's own doors."""

import timm
import torch

from lightning_modules.vision import VisionMamba
from lightning_modules.vision.networks import timm_models

LONG = "_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"


def test_all_published_names_and_both_spellings_are_registered() -> None:
    official = [
        f"vim_tiny_patch16_224{LONG}",
        f"vim_tiny_patch16_stride8_224{LONG}",
        f"vim_small_patch16_224{LONG}",
        f"vim_small_patch16_stride8_224{LONG}",
        f"vim_base_patch16_224{LONG.replace('midclstok', 'middle_cls_token')}",
    ]
    aliases = [name.replace("midclstok", "middle_cls_token") for name in official]
    for name in (*official, *aliases, "vim_tiny_patch16_384"):
        assert timm.is_model(name), name
    assert len(timm.list_models("vim_*")) == len(timm_models.VARIANTS) == 36


def test_create_model_passes_timm_options_on() -> None:
    model = timm.create_model(
        "vim_tiny_patch16_224", depth=2, num_classes=7, drop_path_rate=0.2, img_size=32
    )
    assert isinstance(model, VisionMamba)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    assert model.drop_path.p == 0.2
    config = timm.data.resolve_model_data_config(model)
    assert config["crop_pct"] == 0.875
    assert config["interpolation"] == "bicubic"


def test_layer_wise_learning_rates_group_stem_blocks_and_head() -> None:
    model = timm.create_model("vim_tiny_patch16_224", depth=2, img_size=32)
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["pos_embed"] == groups["patch_embed.proj.weight"] == groups["cls_token"] == 0
    assert groups["layers.0.mixer.D"] == 1
    assert groups["layers.1.norm.weight"] == 2
    assert groups["norm_f.weight"] == 2  # timm lets the final norm go with the last block
    assert groups["head.weight"] > 2


def test_features_only_gives_maps() -> None:
    model = timm.create_model(
        "vim_tiny_patch16_224", depth=4, img_size=32, features_only=True, out_indices=(1, 3)
    )
    assert [tuple(m.shape) for m in model(torch.randn(1, 3, 32, 32))] == [(1, 192, 2, 2)] * 2
    assert model.feature_info.channels() == [192, 192]
    assert model.feature_info.reduction() == [16, 16]
