"""Layer-wise learning rates for fine-tuning: what lies deeper learns faster (ELECTRA, BEiT, timm).

A layer's rate is `decay ** (last - layer)` times the base rate: the head has the base rate, the
stem the smallest. A network says by timm's `group_matcher` what belongs to which layer.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from blocks.errors import SuiteError


def layer_rates(module: nn.Module, decay: float) -> dict[str, tuple[int, float]]:
    """Layer of every parameter and the factor of its learning rate.

    Args:
        module: A workload, whose `network` has layers and whose other parameters count as head;
            or a network by itself.
        decay: Factor between neighbouring layers, in (0, 1].

    Returns:
        For each parameter's name, its layer, from 0 at the stem, and its factor.

    Raises:
        SuiteError: The decay is no such factor, or the network does not tell its layers.
    """
    from timm.models import group_parameters

    if not 0 < decay <= 1:
        raise SuiteError(
            expected="a factor above 0 and at most 1",
            found=f"{decay}",
            where="model.init_args.optimizer.layer_decay",
            cure="use 0.65 to 0.9, or null for equal rates",
        )
    network = getattr(module, "network", module)
    matcher: Callable[..., Any] | None = getattr(network, "group_matcher", None)
    if matcher is None:
        raise SuiteError(
            expected="a network that tells its layers by timm's group_matcher()",
            found=f"{type(network).__name__} without it",
            where="model.init_args.optimizer.layer_decay",
            cure="set it to null, or give the network a group_matcher",
        )
    layers = group_parameters(network, matcher(coarse=False), reverse=True)
    last = max(layers.values())
    prefix = "" if network is module else "network."
    found = {prefix + name: layer for name, layer in layers.items()}
    outside = [name for name, _ in module.named_parameters() if name not in found]
    # A backbone whose own head was taken off ends with a block; what follows it is a layer more.
    if outside and not _has_head(network):
        last += 1
    found |= dict.fromkeys(outside, last)
    return {name: (layer, decay ** (last - layer)) for name, layer in found.items()}


def _has_head(network: nn.Module) -> bool:
    head = getattr(network, "get_classifier", nn.Identity)()
    return isinstance(head, nn.Module) and any(True for _ in head.parameters())
