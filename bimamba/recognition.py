"""Which published family a state dict belongs to, read off its keys and shapes alone."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

State = Mapping[str, Tensor]

_VIM_SIZES = {(192, 24): "tiny", (384, 24): "small", (768, 24): "base"}
_DEIT_SIZES = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base"}
_MIXER, _SCAN, _ATTENTION = (
    "layers.0.mixer.in_proj.weight",
    re.compile(r"layers\.0\.blocks\.0\.(op|self_attention)\.x_proj_weight"),
    "blocks.0.attn.qkv.weight",
)


@dataclass(frozen=True)
class Family:
    """What is known of a network.

    Args:
        name: `Vim`, `VMamba`, `DeiT`, or `unknown`.
        size: Its published name where it has one, and its measures.
    """

    name: str
    size: str


def recognise(state: State) -> Family:
    """Recognises Vim (hustvl/Vim), VMamba (MzeroMiko/VMamba) and DeiT, which is also timm's ViT.

    Args:
        state: Keys without wrapper prefixes.
    """
    tests: tuple[tuple[bool, Callable[[State], Family]], ...] = (
        (_MIXER in state, _vim),
        (any(_SCAN.fullmatch(key) for key in state), _vmamba),
        (_ATTENTION in state, _deit),
    )
    return next((read(state) for holds, read in tests if holds), Family("unknown", ""))


def _vim(state: State) -> Family:
    dim, depth = state[_MIXER].shape[1], _count(state, r"layers\.(\d+)\.")
    kind = "v2" if "layers.0.mixer.conv1d_b.weight" in state else "v1"
    kind = kind if "layers.0.mixer.A_b_log" in state else "one direction"
    return Family("Vim", _join(_VIM_SIZES.get((dim, depth)), dim, depth, kind, *_tokens(state)))


def _vmamba(state: State) -> Family:
    stages = _count(state, r"layers\.(\d+)\.")
    depths = [_count(state, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)]
    [scan] = {key for key in state if _SCAN.fullmatch(key)}
    dim = state[scan.replace("x_proj_weight", "in_proj.weight")].shape[1]
    states = state[scan.replace("x_proj_weight", "A_logs")].shape[1]
    text = f"blocks {', '.join(map(str, depths))}, first {dim} wide, {states} states a channel"
    return Family("VMamba", text)


def _deit(state: State) -> Family:
    dim, depth = state[_ATTENTION].shape[1], _count(state, r"blocks\.(\d+)\.")
    distilled = ["distilled"] if "dist_token" in state else []
    return Family(
        "DeiT", _join(_DEIT_SIZES.get((dim, depth)), dim, depth, *distilled, *_tokens(state))
    )


def _tokens(state: State) -> list[str]:
    table, kernel = state.get("pos_embed"), state.get("patch_embed.proj.weight")
    found = [] if table is None else [f"{table.shape[1]} positions"]
    return found + ([] if kernel is None else [f"patches of {kernel.shape[-1]} px"])


def _join(name: str | None, dim: int, depth: int, *more: str) -> str:
    return ", ".join([*([name] if name else []), f"{dim} wide", f"{depth} deep", *more])


def _count(state: State, pattern: str) -> int:
    """Distinct numbers that the pattern's group takes at the start of keys."""
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})
