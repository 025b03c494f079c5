"""What a file of MotionAGFormer weights says about its network.

Everything but the number of heads, the neighbours and the kind of graph shows in the shapes.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from blocks.errors import SuiteError

_GRAPH_BN = "layers.0.graph_temporal.mixer.batch_norm.weight"
_BARE_BN = "layers.0.graph_temporal.batch_norm.weight"


def inferred_configuration(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of the `MotionAGFormer` that fits the weights, as far as they show.

    Args:
        state: Weights under upstream's keys.

    Raises:
        SuiteError: These are no weights of a MotionAGFormer.
    """
    try:
        width, features = state["joints_embed.weight"].shape
        stream = state["layers.0.att_spatial.norm1.weight"].shape[0]
        found: dict[str, Any] = {
            "depth": 1 + max(int(k.split(".")[1]) for k in state if k.startswith("layers.")),
            "dim": width,
            "in_features": features,
            "out_features": state["head.weight"].shape[0],
            "dim_rep": state["rep_logit.fc.weight"].shape[0],
            "mlp_ratio": state["layers.0.att_spatial.mlp.fc1.weight"].shape[0] / stream,
            "qkv_bias": "layers.0.att_spatial.mixer.qkv.bias" in state,
            "adaptive_fusion": "layers.0.fusion.weight" in state,
            "hierarchical": stream < width,
            "graph_only": _BARE_BN in state or "layers.0.graph_spatial.U.weight" in state,
        }
    except KeyError as error:
        raise SuiteError(
            expected="weights of a MotionAGFormer",
            found=f"no entry {error.args[0]}",
            where="weights to start from",
            cure="give a file of TaatiTeam/MotionAGFormer, or a checkpoint of this suite",
        ) from error
    frames = state.get(_GRAPH_BN, state.get(_BARE_BN))
    if frames is not None:
        found["num_frames"] = len(frames)
    if any(".branches." in key for key in state):
        found["temporal"] = "convolution"
    if "layers.0.att_spatial.layer_scale_1" not in state:
        found["layer_scale"] = None
    return found


def check_configuration(state: Mapping[str, Tensor], configured: Mapping[str, Any]) -> None:
    """Compares weights with the arguments of a network.

    Args:
        state: Weights under upstream's keys.
        configured: Constructor arguments.

    Raises:
        SuiteError: They differ; the message says how to set the network.
    """
    found = inferred_configuration(state)
    wrong = {
        name: value
        for name, value in found.items()
        if name in configured and not _same(configured[name], value)
    }
    if wrong:
        raise SuiteError(
            expected=", ".join(f"{name}={configured[name]}" for name in wrong) + ", as configured",
            found=", ".join(f"{name}={value}" for name, value in wrong.items()),
            where="weights to start from",
            cure="set model.init_args.network.init_args to what the weights are: "
            + ", ".join(f"{name}: {value}" for name, value in wrong.items()),
        )


def _same(configured: Any, found: Any) -> bool:
    if configured is None or found is None:
        return configured is None and found is None
    return bool(configured == found)
