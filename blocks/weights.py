"""Foreign weights into our networks: find the state dict, match it, report, refuse a bad match.

Reading is `blocks.files.load_foreign`, so a file cannot run code. A network that needs more than
equal keys (renamed layers, another image size) has a method `adapt_state_dict(state) -> state`.
"""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.files import atomic_path, load_foreign

# Wrappers of DDP, torch.compile, Lightning modules and detectors.
_PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "backbone.")
# Where training programs put weights: DeiT/Vim/VMamba, Lightning, timm, MDM, others.
_PLACES = {
    "model": ("model", "current_model_state", "state_dict", "model_state_dict", "net", "module"),
    "model_ema": ("model_ema", "state_dict_ema", "ema", "model_avg", "state_dict"),
}


@dataclass(frozen=True)
class MatchReport:
    """What became of every entry when weights met a network."""

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    fraction: float = 0.0

    def __str__(self) -> str:
        """One line for the log."""
        text = f"{self.source}: {len(self.loaded)} entries loaded ({self.fraction:.1%} of weights)"
        for name in ("missing", "mismatched", "unexpected"):
            if keys := getattr(self, name):
                text += f"; {name}: {', '.join(keys[:4])}{' …' * (len(keys) > 4)} ({len(keys)})"
        return text


def read_state_dict(path: str | Path, weights: str = "model") -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint of ours, Vim, VMamba, DeiT, timm or a bare state dict.

    Args:
        path: `.pth`, `.pt`, `.ckpt`, `.bin` or `.safetensors`.
        weights: `model` for the trained weights, `model_ema` for their moving average.

    Returns:
        Keys without wrapper prefixes, tensors on the CPU.

    Raises:
        SuiteError: The file holds no such weights.
    """
    return pick_state_dict(load_foreign(path), weights, str(path))[0]


def pick_state_dict(
    content: Any, weights: str = "model", source: str = "checkpoint"
) -> tuple[dict[str, Tensor], str]:
    """Finds the tensors in what a checkpoint holds.

    Args:
        content: What `load_foreign` returned.
        weights: `model` for the trained weights, `model_ema` for their moving average.
        source: What to call it in the error, usually the path.

    Returns:
        Keys without wrapper prefixes; and the top-level key they lay under, "" for none.

    Raises:
        SuiteError: It holds no such weights.
    """
    place, found = _find(content, weights)
    if found is None:
        keys = list(content)[:8] if isinstance(content, Mapping) else type(content).__name__
        raise SuiteError(
            expected=f"a state dict under one of {', '.join(_PLACES[weights])}, or at top level",
            found=f"{keys}",
            where=source,
            cure="choose weights: model | model_ema, or save the state dict alone",
        )
    return _strip_prefixes(found), place


def write_state_dict(
    path: str | Path, state: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Writes weights in one step, for readers without this suite.

    Args:
        path: `.safetensors`, with the facts as metadata; or `.pth`, a dict with the entries under
            `model`, as Vim, VMamba and DeiT read it.
        state: The entries.
        facts: Plain data about them; JSON in the metadata, where it is no string.

    Raises:
        SuiteError: Another suffix.
    """
    path = Path(path)
    if path.suffix not in {".safetensors", ".pth"}:
        raise SuiteError(
            expected="a file name that ends in .safetensors or .pth",
            found=path.name,
            where="the file to write",
            cure="choose .safetensors, which no program can hide in",
        )
    # Entries may be views of one storage, which the format refuses.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    with atomic_path(path) as temporary:
        if path.suffix == ".pth":
            torch.save({"model": tensors, **facts}, temporary)
            return
        from safetensors.torch import save_file

        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
        save_file(tensors, temporary, {"format": "pt", **texts})


def load_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    allow_fresh: Sequence[str] = (),
    minimum_match: float = 1.0,
) -> MatchReport:
    """Copies matching entries into `network` and reports the rest.

    Args:
        network: Receives the weights; its own values stay where nothing matches.
        state: Entries by key, after the network's `adapt_state_dict` if it has one.
        source: What to call the weights in the report, usually the path.
        allow_fresh: Patterns (`head.*`) of entries that may stay freshly initialised.
        minimum_match: Least fraction, in 0..1, of the other weights of network and file alike
            that must be loaded.

    Returns:
        The report.

    Raises:
        SuiteError: Fewer weights match than asked for; the network is then unchanged.
    """
    own = network.state_dict()
    state = _prefixed_like(own, state)
    loaded, mismatched = [], []
    for key in own.keys() & state.keys():
        if own[key].shape == state[key].shape:
            loaded.append(key)
        else:
            shapes = f"{tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            mismatched.append(f"{key} ({shapes})")
    # Counted from both sides: half of a deep network fills a shallow one, and is no match.
    wanted, offered = (
        sum(tensor.numel() for key, tensor in side.items() if not _matches(key, allow_fresh))
        for side in (own, state)
    )
    matched = sum(own[key].numel() for key in loaded if not _matches(key, allow_fresh))
    report = MatchReport(
        source=source,
        loaded=sorted(loaded),
        missing=sorted(own.keys() - state.keys()),
        unexpected=sorted(state.keys() - own.keys()),
        mismatched=sorted(mismatched),
        fraction=matched / max(wanted, offered, 1),
    )
    if report.fraction < minimum_match:
        raise SuiteError(
            expected=f"weights for at least {minimum_match:.0%} of {type(network).__name__}",
            found=str(report),
            where=source,
            cure="build the network the weights were trained with (size, patch, stride, variant)",
        )
    with torch.no_grad():
        network.load_state_dict({key: state[key] for key in loaded}, strict=False)
    return report


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(key, pattern) for pattern in patterns)


def _find(content: Any, weights: str) -> tuple[str, Mapping[str, Tensor] | None]:
    if not isinstance(content, Mapping):
        return "", None
    for place in _PLACES[weights]:
        if (
            place == "state_dict"
            and weights == "model_ema"
            and "current_model_state" not in content
        ):
            continue  # Lightning stores averages there only when it also stores the raw weights.
        if _is_state_dict(content.get(place)):
            return place, {k: v for k, v in content[place].items() if isinstance(v, Tensor)}
    if weights == "model" and _is_state_dict(content):
        return "", {k: v for k, v in content.items() if isinstance(v, Tensor)}
    return "", None


def _is_state_dict(content: object) -> bool:
    return isinstance(content, Mapping) and any(isinstance(v, Tensor) for v in content.values())


def _strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        # A Lightning module keeps metrics and losses beside its network: only the network counts.
        if inside and (len(inside) == len(state) or prefix == "network."):
            return _strip_prefixes(inside)  # Wrappers nest in any order.
    return dict(state)


def _prefixed_like(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Gives back the prefix that was taken for a wrapper's where it is the network's own."""
    bare = list(_strip_prefixes(own))
    if len(bare) < len(own) or not own.keys().isdisjoint(state):
        return state
    prefix = next(iter(own), "").removesuffix(next(iter(bare), ""))
    return {prefix + key: value for key, value in state.items()}
