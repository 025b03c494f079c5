"""Files of trained evaluators: `finest.tar` of EricGuo5513/text-to-motion, theirs and ours.

Keys: `movement_encoder`, `text_encoder`, `motion_encoder` (state dicts), `epoch`, `iter`. Ours
holds one more, `bimamba`, with the network's sizes, the statistics it was trained with and what
data made it; other programs pass over it. Those of the official one are in a folder `meta` nearby.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.files import atomic_path, load_foreign
from lightning_modules.motion.networks.motion_evaluator import CONTACTS, MotionEvaluator

NAME = "finest.tar"
PARTS = ("movement_encoder", "text_encoder", "motion_encoder")
_OURS, _SCHEMA = "bimamba", 1
# HumanML3D and KIT-ML have so many features without the contacts, which the official files leave
# out, and so many essential ones, all of which neu-vi/MARDM reads.
_WITHOUT_CONTACTS, _ESSENTIAL = (259, 247), (67, 64)
_META = ("meta", "Comp_v6_KLD01/meta", "Comp_v6_KLD005/meta")


@dataclass(frozen=True)
class EvaluatorFile:
    """A trained evaluator.

    Args:
        network: Its networks, in evaluation mode.
        mean: Statistics that motion has to be normalised with, (features,); None where the file
            does not tell.
        std: The same.
        facts: What it was trained on, by name; empty for those of others.
        path: Where it was read.
    """

    network: MotionEvaluator
    mean: Tensor | None
    std: Tensor | None
    facts: Mapping[str, Any]
    path: Path

    @property
    def foreign(self) -> bool:
        """Whether another program wrote it."""
        return not self.facts

    @property
    def hash(self) -> str:
        """Twelve digits that tell evaluators apart: figures of different ones do not compare."""
        state = self.network.state_dict()
        return _digest(state[key] for key in sorted(state))


def statistics_hash(mean: Tensor, std: Tensor) -> str:
    """Twelve digits of the statistics that motion is normalised with."""
    return _digest((mean, std))


def save_evaluator(
    path: Path,
    network: MotionEvaluator,
    mean: Tensor,
    std: Tensor,
    facts: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
    epoch: int = 0,
    steps: int = 0,
) -> None:
    """Writes an evaluator, and its statistics as `meta/{mean,std}.npy` beside it.

    Args:
        path: The file; its name should be `finest.tar`.
        network: Its networks.
        mean: Statistics of what it reads, (features,).
        std: The same.
        facts: Plain data about what made it.
        state: Weights to write instead of the network's own.
        epoch: Epochs it was trained for.
        steps: Optimiser steps.
    """
    state = network.state_dict() if state is None else state
    content: dict[str, Any] = {"epoch": epoch, "iter": steps}
    for part in PARTS:
        prefix = f"{part}."
        content[part] = {
            key.removeprefix(prefix): value.detach().cpu()
            for key, value in state.items()
            if key.startswith(prefix)
        }
    content[_OURS] = {
        "schema": _SCHEMA,
        "network": dict(network.init_call["init_args"]),
        "mean": mean.detach().cpu(),
        "std": std.detach().cpu(),
        "facts": dict(facts),
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
    for name, values in (("mean", mean), ("std", std)):
        with atomic_path(path.parent / "meta" / f"{name}.npy") as temporary:
            np.save(temporary, values.detach().cpu().numpy())


def load_evaluator(path: str | Path) -> EvaluatorFile:
    """Reads an evaluator, ours or another's, without running code from it.

    Args:
        path: The file, or a folder with it somewhere inside; the newest one is taken.

    Raises:
        SuiteError: There is none, or it has other networks.
    """
    found = find_evaluator(Path(path))
    content = load_foreign(found)
    if not isinstance(content, Mapping) or not all(part in content for part in PARTS):
        keys = ", ".join(list(content)[:6]) if isinstance(content, Mapping) else type(content)
        raise SuiteError(
            expected=f"an evaluator with {', '.join(PARTS)}",
            found=f"{keys}",
            where=str(found),
            cure="train one: bimamba fit --config configs/motion/evaluator.yaml",
        )
    ours = content.get(_OURS, {})
    sizes = ours["network"] if ours else _sizes(content, found)
    network = MotionEvaluator(**sizes)
    for part in PARTS:
        try:
            network.get_submodule(part).load_state_dict(content[part])
        except RuntimeError as error:
            raise SuiteError(
                expected=f"weights of the evaluator's {part.replace('_', ' ')}",
                found=" ".join(str(error).split())[:200],
                where=str(found),
                cure="use finest.tar of EricGuo5513/text-to-motion or of this suite",
            ) from error
    mean, std = (ours["mean"], ours["std"]) if ours else _statistics(found, network.in_features)
    return EvaluatorFile(network.eval(), mean, std, ours.get("facts", {}), found)


def find_evaluator(path: Path) -> Path:
    """The file that a path means: itself, or the newest one inside a folder.

    Raises:
        SuiteError: There is none.
    """
    inside = path.rglob(NAME) if path.is_dir() else ()
    files = [path] if path.is_file() else sorted(inside, key=lambda file: file.stat().st_mtime)
    if not files:
        raise SuiteError(
            expected=f"{NAME} of an evaluator, or a folder with one inside",
            found="none" if path.is_dir() else "no such file or folder",
            where=str(path),
            cure="train one: bimamba fit --config configs/motion/evaluator.yaml",
        )
    return files[-1]


def _sizes(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Arguments of the network whose weights these are."""
    try:
        dim_movement, features, _ = content["movement_encoder"]["main.0.weight"].shape
        motion, text = content["motion_encoder"], content["text_encoder"]
        dim_word, dim_pos = text["pos_emb.weight"].shape
        sizes = {
            "dim_movement": dim_movement,
            "dim_motion": len(motion["input_emb.weight"]),
            "dim_text": len(text["input_emb.weight"]),
            "dim": len(text["output_net.3.weight"]),
            "dim_word": dim_word,
            "dim_pos": dim_pos,
        }
    except KeyError as error:
        raise SuiteError(
            expected="the networks of EricGuo5513/text-to-motion",
            found=f"no weight {error}",
            where=str(path),
            cure="use finest.tar of text_mot_match; the CLIP-like one has other networks",
        ) from error
    drop = features not in _ESSENTIAL
    if drop and features not in _WITHOUT_CONTACTS:
        raise SuiteError(
            expected=f"an evaluator of {(*_WITHOUT_CONTACTS, *_ESSENTIAL)} features",
            found=f"{features}",
            where=str(path),
            cure="use one trained on HumanML3D or KIT-ML",
        )
    return {"in_features": features + CONTACTS * drop, "drop_contacts": drop, **sizes}


def _statistics(path: Path, features: int) -> tuple[Tensor | None, Tensor | None]:
    """Statistics in a folder near the file, as the official download has them."""
    for folder in path.parents[:3]:
        for meta in _META:
            files = [folder / meta / f"{name}.npy" for name in ("mean", "std")]
            if not all(file.is_file() for file in files):
                continue
            mean, std = (torch.from_numpy(np.load(file)).float() for file in files)
            if len(mean) >= features:
                return mean[:features], std[:features]
    return None, None


def _digest(tensors: Iterable[Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(np.ascontiguousarray(tensor.detach().float().cpu().numpy()).tobytes())
    return total.hexdigest()[:12]
