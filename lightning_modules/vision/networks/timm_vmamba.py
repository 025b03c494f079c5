"""The published VMamba models under their names in timm: `timm.create_model("vmamba_tiny_s1l8")`.

Importing this file registers them. Names, sizes and ImageNet-1K Top-1 at 224 pixels from
MzeroMiko/VMamba; the s says `ssm_ratio`, the l the blocks of the third stage:

    first models    tiny 82.2         small 83.5          base 83.7
    current ones    tiny_s2l5 82.5    small_s2l15 83.6    base_s2l15 83.9
                    tiny_s1l8 82.6    small_s1l20 83.3    base_s1l20 83.8
"""

from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from lightning_modules.vision.networks.vmamba import VMamba

# Upstream calls these "vanilla".
_FIRST = {
    "d_state": 16,
    "ssm_ratio": 2.0,
    "conv_bias": True,
    "forward_type": "v0",
    "mlp_ratio": 0.0,
    "stem": "v1",
    "downsample": "v1",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "vmamba_tiny": {**_FIRST, "depths": (2, 2, 9, 2), "dim": 96, "drop_path": 0.2},
    "vmamba_small": {**_FIRST, "depths": (2, 2, 27, 2), "dim": 96, "drop_path": 0.3},
    "vmamba_base": {**_FIRST, "depths": (2, 2, 27, 2), "dim": 128, "drop_path": 0.6},
    "vmamba_tiny_s2l5": {"ssm_ratio": 2.0, "depths": (2, 2, 5, 2), "dim": 96, "drop_path": 0.2},
    "vmamba_small_s2l15": {"ssm_ratio": 2.0, "depths": (2, 2, 15, 2), "dim": 96, "drop_path": 0.3},
    "vmamba_base_s2l15": {"ssm_ratio": 2.0, "depths": (2, 2, 15, 2), "dim": 128, "drop_path": 0.6},
    "vmamba_tiny_s1l8": {"ssm_ratio": 1.0, "depths": (2, 2, 8, 2), "dim": 96, "drop_path": 0.2},
    "vmamba_small_s1l20": {"ssm_ratio": 1.0, "depths": (2, 2, 20, 2), "dim": 96, "drop_path": 0.3},
    "vmamba_base_s1l20": {"ssm_ratio": 1.0, "depths": (2, 2, 20, 2), "dim": 128, "drop_path": 0.5},
}
_CONFIG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "license": "mit",
    **VMamba.pretrained_cfg,
}


def _entrypoint(name: str, arguments: dict[str, Any]) -> Callable[..., VMamba]:
    def build(pretrained: bool = False, **kwargs: Any) -> VMamba:
        if (rate := kwargs.pop("drop_path_rate", None)) is not None:
            kwargs["drop_path"] = rate
        model: VMamba = build_model_with_cfg(
            VMamba,
            name,
            pretrained,
            feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
            **{**arguments, **kwargs},
        )
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"VMamba with {arguments}."
    return build


default_cfgs = generate_default_cfgs(dict.fromkeys(VARIANTS, _CONFIG))
for _name, _arguments in VARIANTS.items():
    globals()[_name] = register_model(_entrypoint(_name, _arguments))
