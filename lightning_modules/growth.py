"""Deeper networks that compute the same: blocks are added whose branches are silent at first.

A residual block whose output projection is zero passes its input on, so a trained shallow network
goes on from where it was (Net2Net, arXiv 1511.05641; progressive stacking).
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from blocks.errors import SuiteError

# Last layer of a residual branch: state-space mixers, attention, MLPs (ours and timm's).
_OUTPUTS = ("out_proj", "attn.proj", "mlp.fc2")


def blocks_of(network: nn.Module) -> nn.ModuleList | nn.Sequential:
    """The stack of blocks that can grow, `layers` or `blocks`.

    Raises:
        SuiteError: The network has no such stack, or not one that its `depth` decides.
    """
    found = [getattr(network, name, None) for name in ("layers", "blocks")]
    stacks = [stack for stack in found if isinstance(stack, nn.ModuleList | nn.Sequential)]
    call = network.__dict__.get("init_call")
    if len(stacks) != 1 or call is None or _depth_place(call).get("depth") != len(stacks[0]):
        raise SuiteError(
            expected="a network with one stack of `depth` equal blocks, such as VisionMamba",
            found=type(network).__name__,
            where="trainer.callbacks: ProgressiveDepth",
            cure="take an isotropic network and state its depth; stages of different width "
            "cannot grow",
        )
    return stacks[0]


def grow(network: nn.Module, depth: int) -> None:
    """Appends blocks in place; outputs stay as they are, drop-path rates follow the new depth.

    The new blocks start as in a fresh network of that depth, but for the output projections, which
    are zero. The network remembers its new depth for checkpoints.

    Args:
        network: Recorded, with `depth` among its constructor's arguments.
        depth: Blocks afterwards.

    Raises:
        SuiteError: The network cannot grow, or would shrink.
    """
    stack = blocks_of(network)
    present = len(stack)
    if depth < present:
        raise SuiteError(
            expected=f"a depth of at least {present}, which the network has",
            found=str(depth),
            where="growth of a network",
            cure="order the stages by depth",
        )
    if depth == present:
        return
    call = _deeper(network.__dict__["init_call"], depth)
    package, _, name = call["class_path"].rpartition(".")
    model: nn.Module = getattr(importlib.import_module(package), name)(**call["init_args"])
    weight = next(network.parameters())
    added = list(blocks_of(model))[present:]
    for block in added:
        _silence(block)
        stack.append(block.to(weight.device, weight.dtype).train(network.training))
    for path, module in model.named_modules():
        if type(module).__name__ == "DropPath":
            network.set_submodule(path, module.train(network.training))
    if "feature_info" in network.__dict__:
        network.feature_info = model.feature_info
    network.__dict__["init_call"] = call


def regrow(callbacks: Sequence[Any], network: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Gives a network that grows in training the depth it has in a checkpoint.

    Args:
        callbacks: The trainer's; without one that `grows` networks, nothing is done, and another
            depth is refused like any other difference.
        network: As it is configured.
        checkpoint: About to be loaded; a foreign one is left to its own check.
    """
    stored = checkpoint.get("hyper_parameters", {}).get("network")
    if stored and any(getattr(callback, "grows", False) for callback in callbacks):
        depth = _depth_place(stored).get("depth", 0)
        grow(network, max(depth, len(blocks_of(network))))


def _silence(block: nn.Module) -> None:
    outputs = [
        module
        for path, module in block.named_modules()
        if any(path == name or path.endswith(f".{name}") for name in _OUTPUTS)
    ]
    if not outputs:
        raise SuiteError(
            expected=f"blocks whose branches end in one of {', '.join(_OUTPUTS)}",
            found=type(block).__name__,
            where="growth of a network",
            cure="call the last layer of the branch out_proj",
        )
    with torch.no_grad():
        for parameter in (p for module in outputs for p in module.parameters()):
            parameter.zero_()


def _depth_place(call: dict[str, Any]) -> dict[str, Any]:
    """The arguments that `depth` is one of; timm's networks have them among their options."""
    arguments: dict[str, Any] = call["init_args"]
    return arguments if "depth" in arguments else arguments.get("options") or {}


def _deeper(call: dict[str, Any], depth: int) -> dict[str, Any]:
    arguments = dict(call["init_args"])
    if "depth" in arguments:
        arguments["depth"] = depth
    else:
        arguments["options"] = {**arguments["options"], "depth": depth}
    return {**call, "init_args": arguments}
