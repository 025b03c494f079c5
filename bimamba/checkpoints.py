"""A look at --ckpt_path before anything is built: is it ours, and does it agree with the config?"""

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from blocks.errors import SuiteError
from blocks.files import load_foreign


def inspect_checkpoint(path: str, config: Any) -> int:
    """Refuses what is no checkpoint of ours; warns where the config differs from it.

    Args:
        path: The file.
        config: The verb's configuration, which wins over the checkpoint.

    Returns:
        Optimiser steps behind the checkpoint.

    Raises:
        SuiteError: Unreadable, hostile, foreign, or of another workload or network.
    """
    content = load_foreign(path)
    if not isinstance(content, Mapping) or "schema" not in content:
        raise SuiteError(
            expected="a checkpoint of this suite",
            found="foreign weights",
            where=path,
            cure=f"start from them with --model.init_args.pretrained {path}",
        )
    stored = dict(content["hyper_parameters"])
    stored_class = stored.pop("_class_path")
    stored.pop("_instantiator", None)
    if _name(stored_class) != _name(config.model.class_path):
        raise SuiteError(
            expected=f"a checkpoint of {_name(config.model.class_path)}",
            found=f"one of {_name(stored_class)}",
            where=path,
            cure="use the config.yaml beside the checkpoint",
        )
    ours = config.model.init_args.as_dict()
    changes = [
        f"  {key}: {old!r} in the checkpoint, {new!r} in the config (used)"
        for key, old, new in _differences(stored, ours, "")
        if key not in {"pretrained", "pretrained_weights"}
    ]
    if changes:
        rank_zero_warn("The config differs from the checkpoint:\n" + "\n".join(changes))
    return int(content["global_step"])


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], above: str
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(old.keys() & new.keys()):
        left, right = old[key], new[key]
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from _differences(left, right, f"{above}{key}.")
        elif key == "class_path" and _name(left) == _name(right):
            continue  # A class has one name, unique in the suite, but several import paths.
        elif _plain(left) != _plain(right):
            yield f"{above}{key}", left, right


def _name(class_path: str) -> str:
    return class_path.rpartition(".")[2]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
