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
    "norm_epsilon": "norm_eps",
    "if_abs_pos_embed": "pos_embed",
    "if_bidirectional": "paired_layers",
    "if_divide_out": "divide_out",
    "if_random_token_rank": "shuffle_tokens",
    "pt_hw_seq_len": "rope_side",
    **dict.fromkeys(("rms_norm", "bimamba_type", "if_bimamba", "if_cls_token"), None),
    **dict.fromkeys(("use_middle_cls_token", "use_double_cls_token", "final_pool_type"), None),
    **dict.fromkeys(("if_rope", "if_rope_residual", "flip_img_sequences_ratio"), None),
    **dict.fromkeys(("fused_add_norm", "residual_in_fp32", "ft_seq_len", "ssm_cfg"), None),
    "if_random_cls_token_position": None,
}
_POOLS = {"mean": "mean", "none": "last", "max": "max", "all": "all"}


def vim_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translates upstream arguments; what gives other numbers there is refused by name.

    Args:
        config: As stored beside a checkpoint of hustvl/Vim, `if_random_...` of its command among
            them. Upstream's defaults apply.

    Returns:
        Arguments of our `VisionMamba`.

    Raises:
        SuiteError: An unknown name, or a variant that upstream computes wrongly.
    """
    ours = renamed(config, _NAMES, _WHERE)
    ours.setdefault("pos_embed", False)
    ours.setdefault("divide_out", False)
    ours["norm"] = "rms" if config.get("rms_norm", False) else "layer"
    # if_bimamba wins over bimamba_type upstream, whatever the latter says.
    ours["bimamba_type"] = "v1" if config.get("if_bimamba") else config.get("bimamba_type", "none")
    ours["class_token"] = token = _class_token(config)
    pool = config.get("final_pool_type", "none")
    if token == "none":
        ours["pool"] = _POOLS[pool]
    elif pool == "max":
        raise _wrong(
            "final_pool_type", pool, "no class token, or it takes the largest of the logits"
        )
    if config.get("if_rope"):
        if token in {"middle", "double"}:
            raise _wrong("if_rope", True, "no class token or a first one: it turns others wrongly")
        both = config.get("if_rope_residual", False)
        ours["rope"] = "hidden_and_residual" if both else "hidden"
    # A negative ratio is upstream's way to say never.
    ours["reverse_tokens"] = max(config.get("flip_img_sequences_ratio", -1.0), 0.0)
    # Upstream asks for the middle before it looks at this one, which then does nothing.
    moves = config.get("if_random_cls_token_position", False)
    ours["random_class_token"] = bool(moves) and token == "first"
    if config.get("ssm_cfg"):
        raise _wrong("ssm_cfg", config["ssm_cfg"], "null, as in every registered model")
    return ours


def _class_token(config: Mapping[str, Any]) -> str:
    if not config.get("if_cls_token", False):
        return "none"
    if config.get("use_double_cls_token", False):
        return "double"
    return "middle" if config.get("use_middle_cls_token") else "first"


def _wrong(name: str, found: object, need: str) -> SuiteError:
    return SuiteError(
        expected=f"{name} with what upstream computes as meant: {need}",
        found=f"{name}={found!r}",
        where=_WHERE,
        cure="no published weights have this; build VisionMamba with the options you mean",
    )
