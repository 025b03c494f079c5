"""The published Vim models under their names in timm: `timm.create_model("vim_tiny_patch16_224")`.

Importing this file registers them. Sizes, names and ImageNet-1K Top-1 from hustvl/Vim:

    tiny 76.1   tiny, stride 8 78.3   small 80.5   small, stride 8 81.6   base 81.9

Upstream spells the long names in two ways; both work for every size. The 384 names build the same
models for larger images: load 224 weights through `adapt_state_dict`, which resizes positions.
"""

from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from lightning_modules.vision.networks.vision_mamba import VisionMamba

_DIMS = {"tiny": 192, "small": 384, "base": 768}
_LONG = "bimambav2_final_pool_mean_abs_pos_embed_with"


def _variants() -> dict[str, dict[str, Any]]:
    """Every name with its constructor arguments."""
    found = {}
    for size, dim in _DIMS.items():
        for stride in (16, 8):
            for pixels in (224, 384):
                short = f"vim_{size}_patch16_{'stride8_' * (stride == 8)}{pixels}"
                long = [
                    f"{short}_{_LONG}_{token}_div2" for token in ("midclstok", "middle_cls_token")
                ]
                for name in (short, *long):
                    found[name] = {"dim": dim, "stride": stride, "img_size": pixels}
    return found


def _entrypoint(name: str, arguments: dict[str, Any]) -> Callable[..., VisionMamba]:
    def build(pretrained: bool = False, drop_path_rate: float = 0.1, **kwargs: Any) -> VisionMamba:
        model: VisionMamba = build_model_with_cfg(
            VisionMamba,
            name,
            pretrained,
            feature_cfg={"out_indices": 4, "feature_cls": "getter"},
            **{**arguments, "drop_path": drop_path_rate, **kwargs},
        )
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Vim with {arguments}."
    return build


def _config(arguments: dict[str, Any]) -> dict[str, Any]:
    pixels = arguments["img_size"]
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, pixels, pixels),
        "fixed_input_size": True,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }


VARIANTS = _variants()
default_cfgs = generate_default_cfgs({name: _config(given) for name, given in VARIANTS.items()})
for _name, _arguments in VARIANTS.items():
    globals()[_name] = register_model(_entrypoint(_name, _arguments))
