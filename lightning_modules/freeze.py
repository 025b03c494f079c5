"""Frozen parts of a network, the same way in every wing: parameters that keep their first values.

For a new head on trained features, or for DeiT's `--attn-only` (facebookresearch/deit):

    trainer:
      callbacks:
        - class_path: Freeze
          init_args: {patterns: ["*"], keep: ["*.attn.*", "head.*", "pos_embed"]}
"""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from blocks.errors import SuiteError


class Freeze(Callback):
    """Keeps parameters as they are; they get no gradient, no optimiser state and no average.

    The workload applies it once its network is complete and before there is an optimiser. Batch
    norms whose parameters or statistics are frozen stay in evaluation mode.

    Args:
        patterns: What to freeze, by name within the network; `*` stands for anything, dots too:
            `layers.0.*`, `*.norm.*`.
        keep: What to train all the same.
    """

    def __init__(self, patterns: list[str], keep: list[str] | None = None) -> None:
        super().__init__()
        self.patterns, self.keep = patterns, keep or []

    def apply(self, network: nn.Module) -> None:
        """Freezes the network's parameters.

        Args:
            network: Complete, for a head that is added later would train.

        Raises:
            SuiteError: A pattern matches nothing, or nothing is left to train.
        """
        parameters = dict(network.named_parameters())
        names = [*parameters, *(name for name, _ in network.named_buffers())]
        for pattern in (*self.patterns, *self.keep):
            if not any(fnmatchcase(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern, [*names, *_parts(names)], 3, 0.5)
                raise SuiteError(
                    expected=f"patterns of parameters of {type(network).__name__}",
                    found=f"{pattern}, which matches none of {len(names)}",
                    where="trainer.callbacks: Freeze",
                    cure=f"did you mean {' or '.join(near)}?"
                    if near
                    else f"its names look like {', '.join(names[:4])}",
                )
        for name, parameter in parameters.items():
            parameter.requires_grad_(parameter.requires_grad and not self._holds(name))
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise SuiteError(
                expected="parameters to train",
                found=f"all {len(parameters)} frozen",
                where="trainer.callbacks: Freeze",
                cure="name what trains all the same in keep, such as head.*",
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Holds the statistics of frozen batch norms, which no gradient guards."""
        for name, layer in pl_module.get_submodule("network").named_modules():
            if isinstance(layer, _BatchNorm):
                own = list(layer.parameters(recurse=False))
                frozen = bool(own) and not any(parameter.requires_grad for parameter in own)
                if frozen or self._holds(f"{name}.running_mean"):
                    layer.eval()

    def _holds(self, name: str) -> bool:
        frozen, kept = (
            any(fnmatchcase(name, pattern) for pattern in patterns)
            for patterns in (self.patterns, self.keep)
        )
        return frozen and not kept


def apply_freezes(callbacks: Sequence[Any], network: nn.Module) -> None:
    """Applies every `Freeze` among a trainer's callbacks."""
    for callback in callbacks:
        if isinstance(callback, Freeze):
            callback.apply(network)


def frozen_names(network: nn.Module) -> list[str]:
    """Names of the parameters that do not train."""
    return [name for name, p in network.named_parameters() if not p.requires_grad]


def check_frozen(stored: Sequence[str], network: nn.Module, where: str) -> None:
    """Refuses to go on training a checkpoint whose frozen parameters were others.

    Args:
        stored: `frozen_names` when it was taken.
        network: The one that is to go on.
        where: The checkpoint, for the error.

    Raises:
        SuiteError: They differ, so the optimiser's moments would belong to other parameters.
    """
    own = frozen_names(network)
    if differing := sorted(set(stored) ^ set(own)):
        more = f" and {len(differing) - 3} more" * (len(differing) > 3)
        raise SuiteError(
            expected=f"the frozen parameters of the checkpoint ({len(stored)})",
            found=f"{len(own)} frozen; different: {', '.join(differing[:3])}{more}",
            where=where,
            cure="resume with the same Freeze callback, or begin a new run from these weights: "
            f"--model.init_args.pretrained {where}",
        )


def _parts(names: Sequence[str]) -> list[str]:
    """`layers.0.*` and the like: patterns of every part that the names go through."""
    paths = (name.split(".")[:end] for name in names for end in range(1, name.count(".") + 1))
    return list(dict.fromkeys(".".join(path) + ".*" for path in paths))
