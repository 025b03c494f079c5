"""VMamba through timm's own doors."""

import timm
import torch

from lightning_modules.vision import VMamba
from lightning_modules.vision.networks import timm_vmamba

PARAMETERS = {
    "vmamba_tiny": 22_893_448,
    "vmamba_small": 44_417_416,
    "vmamba_base": 76_254_056,
    "vmamba_tiny_s2l5": 30_705_832,
    "vmamba_small_s2l15": 50_147_752,
    "vmamba_base_s2l15": 88_557_800,
    "vmamba_tiny_s1l8": 30_249_064,
    "vmamba_small_s1l20": 49_012_840,
    "vmamba_base_s1l20": 86_614_504,
}


def test_all_published_models_have_their_number_of_parameters() -> None:
    assert set(timm.list_models("vmamba_*")) == PARAMETERS.keys() == timm_vmamba.VARIANTS.keys()
    for name, expected in PARAMETERS.items():
        with torch.device("meta"):
            model = timm.create_model(name)
        assert isinstance(model, VMamba)
        assert sum(p.numel() for p in model.parameters()) == expected, name


def test_without_arguments_the_class_builds_the_current_tiny_model() -> None:
    with torch.device("meta"):
        own, named = VMamba(), timm.create_model("vmamba_tiny_s1l8")
    assert own.init_call["init_args"] == named.init_call["init_args"]


def test_create_model_passes_timm_options_on() -> None:
    model = timm.create_model("vmamba_tiny", depths=(1, 1), dim=8, num_classes=7, in_chans=1)
    assert model(torch.randn(1, 1, 40, 24)).shape == (1, 7)
    assert model.layers[1]["blocks"][0].drop_path.p == 0.2
    model = timm.create_model("vmamba_tiny", depths=(1, 1), dim=8, drop_path_rate=0.0)
    assert model.layers[1]["blocks"][0].drop_path.p == 0.0
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 224, 224)
    assert (config["crop_pct"], config["interpolation"]) == (0.875, "bicubic")


def test_the_configuration_names_true_layers() -> None:
    model = timm.create_model("vmamba_tiny", depths=(1, 1), dim=8)
    for layer in ("first_conv", "classifier"):
        weight = model.get_submodule(model.pretrained_cfg[layer]).weight
        assert (
            weight
            is (model.patch_embed[0] if layer == "first_conv" else model.classifier.head).weight
        )


def test_features_only_gives_a_pyramid() -> None:
    model = timm.create_model(
        "vmamba_tiny_s1l8", depths=(1, 1, 1), dim=8, features_only=True, out_indices=(0, 2)
    )
    maps = model(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 8, 16, 24), (1, 32, 4, 6)]
    assert model.feature_info.channels() == [8, 32]
    assert model.feature_info.reduction() == [4, 16]
