"""MzeroMiko/VMamba's words in ours: constructor arguments, and the keys of older checkpoints."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from blocks.errors import SuiteError
from blocks.upstream import renamed

_BLOCK = {
    "ssm_d_state": "d_state",
    "ssm_ratio": "ssm_ratio",
    "ssm_dt_rank": "dt_rank",
    "ssm_conv_bias": "conv_bias",
    "forward_type": "forward_type",
    "mlp_ratio": "mlp_ratio",
}
# Where upstream's defaults differ from ours.
_BLOCK_DEFAULTS = {"d_state": 16, "ssm_ratio": 2.0, "conv_bias": True, "forward_type": "v2"}
_NETWORK = {
    "depths": "depths",
    "in_chans": "in_chans",
    "num_classes": "num_classes",
    "drop_path_rate": "drop_path",
    "patchembed_version": "stem",
    "downsample_version": "downsample",
    "use_checkpoint": "grad_checkpointing",
}
_NETWORK_DEFAULTS = {"depths": (2, 2, 9, 2), "drop_path": 0.1, "stem": "v1"}
# Variants without published weights; upstream's own value is the only one we build.
_FIXED_IN_BLOCK = {
    "ssm_act_layer": "silu",
    "ssm_conv": 3,
    "ssm_drop_rate": 0.0,
    "ssm_init": "v0",
    "mlp_act_layer": "gelu",
    "mlp_drop_rate": 0.0,
    "gmlp": False,
}
_FIXED_IN_NETWORK = {"patch_size": 4, "patch_norm": True, "posembed": False}
# "ln2d" is the same norm over channels that come first.
_NORMS = ("ln", "ln2d")

_OLD_KEYS = (
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"^(layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"^(layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
)
# Layers that upstream's channel-first models may store as 1x1 convolutions.
_POINTWISE = re.compile(r"\.(in_proj|out_proj|fc1|fc2)\.weight$")


def block_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translates the arguments of upstream's `VSSBlock`; what we cannot build is refused by name.

    Args:
        config: As stored beside golden vectors. Upstream's defaults apply.

    Returns:
        Arguments of our `VSSBlock`.

    Raises:
        SuiteError: An unknown name, or a variant outside what is published.
    """
    where = "VSSBlock.from_upstream"
    fixed = {**_FIXED_IN_BLOCK, "post_norm": False, "use_checkpoint": False}
    names = {**_BLOCK, "hidden_dim": "dim", "drop_path": "drop_path", "channel_first": None}
    return _translate(config, names, fixed, _BLOCK_DEFAULTS, where)


def network_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translates the arguments of upstream's `VSSM`; what we cannot build is refused by name.

    Args:
        config: As stored beside a checkpoint of MzeroMiko/VMamba. Upstream's defaults apply.

    Returns:
        Arguments of our `VMamba`.

    Raises:
        SuiteError: An unknown name, or a variant outside what is published.
    """
    where = "VMamba.from_upstream"
    names = {**_BLOCK, **_NETWORK, "dims": None, "imgsize": None}
    fixed = {**_FIXED_IN_BLOCK, **_FIXED_IN_NETWORK}
    defaults = {**_BLOCK_DEFAULTS, **_NETWORK_DEFAULTS}
    ours = _translate(config, names, fixed, defaults, where)
    if (version := config.get("downsample_version", "v2")) not in ("v1", "v3"):
        raise _unpublished("downsample_version", "v1 or v3", version, where)
    dims = config.get("dims", 96)
    ours["dim"] = dims if isinstance(dims, int) else dims[0]
    doubled = [ours["dim"] << stage for stage in range(len(ours["depths"]))]
    if not isinstance(dims, int) and list(dims) != doubled:
        raise _unpublished("dims", doubled, dims, where)
    return ours


def current_entries(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of an older checkpoint under today's keys, 1x1 convolutions as matrices.

    Args:
        state: Any state dict of VMamba; not changed.
    """
    found = {}
    for key, tensor in state.items():
        for pattern, name in _OLD_KEYS:
            key = re.sub(pattern, name, key)
        pointwise = _POINTWISE.search(key) and tensor.shape[2:] == (1, 1)
        found[key] = tensor.flatten(1) if pointwise else tensor
    return found


def _translate(
    config: Mapping[str, Any],
    names: Mapping[str, str | None],
    fixed: Mapping[str, object],
    defaults: Mapping[str, object],
    where: str,
) -> dict[str, Any]:
    ignored = dict.fromkeys((*fixed, "norm_layer"), None)
    ours = {**defaults, **renamed(config, {**names, **ignored}, where)}
    for name, only in fixed.items():
        if config.get(name, only) != only:
            raise _unpublished(name, only, config[name], where)
    if str(norm := config.get("norm_layer", "ln")).lower() not in _NORMS:
        raise _unpublished("norm_layer", " or ".join(_NORMS), norm, where)
    if ours["forward_type"] == "v0":
        ours["conv_bias"] = True  # The first form has one whatever the configuration says.
    return ours


def _unpublished(name: str, expected: object, found: object, where: str) -> SuiteError:
    return SuiteError(
        expected=f"{name}={expected}",
        found=f"{name}={found!r}",
        where=where,
        cure="this variant of VMamba has no published weights and is not built here",
    )
