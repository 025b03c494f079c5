"""Constructor arguments of hustvl/Vim's `VisionMamba` in our words."""

from collections.abc import Mapping
from typing import Any

from blocks.errors import SuiteError
from blocks.upstream import renamed

_WHERE = "VisionMamba.from_upstream"
# None: read below, or of no effect on any number (fused_add_norm, ft_seq_len, ...).
_NAMES: dict[str, str | None] = {
    **{name: name for name in ("img_size", "patch_size", "stride", "depth", "num_classes")},
    **{name: name for name in ("d_state", "drop_rate", "init_layer_scale")},
    "embed_dim": "dim",
    "channels": "in_chans",
    "drop_path_rate": "drop_path",
    "if_divide_out": "divide_out",
    **dict.fromkeys(("rms_norm", "bimamba_type", "if_bimamba", "if_cls_token"), None),
    **dict.fromkeys(("use_middle_cls_token", "final_pool_type", "fused_add_norm"), None),
    **dict.fromkeys(("residual_in_fp32", "ft_seq_len", "pt_hw_seq_len"), None),
}
# Variants without published weights; upstream's own value is the only one we build.
_FIXED = {
    "if_abs_pos_embed": True,
    "if_rope": False,
    "if_rope_residual": False,
    "if_bidirectional": False,
    "use_double_cls_token": False,
    "flip_img_sequences_ratio": -1.0,
    "norm_epsilon": 1e-5,
    "ssm_cfg": None,
}


def vim_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translates upstream arguments; what we cannot build is refused by name.

    Args:
        config: As stored beside a checkpoint of hustvl/Vim. Upstream's defaults apply.

    Returns:
        Arguments of our `VisionMamba`.

    Raises:
        SuiteError: An unknown name, or a variant outside what is published.
    """
    ours = renamed(config, {**_NAMES, **dict.fromkeys(_FIXED, None)}, _WHERE)
    for name, only in _FIXED.items():
        if config.get(name, only) != only:
            raise _unpublished(name, only, config[name])
    ours["norm"] = "rms" if config.get("rms_norm", False) else "layer"
    # if_bimamba wins over bimamba_type upstream, whatever the latter says.
    ours["bimamba_type"] = "v1" if config.get("if_bimamba") else config.get("bimamba_type", "none")
    ours.setdefault("divide_out", False)
    if config.get("if_cls_token", False):
        ours["class_token"] = "middle" if config.get("use_middle_cls_token") else "first"
    else:
        ours["class_token"] = "none"
        if (pool := config.get("final_pool_type", "none")) != "mean":
            raise _unpublished("final_pool_type", "mean", pool)
    return ours


def _unpublished(name: str, only: object, found: object) -> SuiteError:
    return SuiteError(
        expected=f"{name}={only!r}",
        found=f"{name}={found!r}",
        where=_WHERE,
        cure="this variant of Vim has no published weights and is not built here",
    )
