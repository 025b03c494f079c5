"""Networks by themselves: from a configuration, and from what a checkpoint says of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from bimamba.discovery import import_wings
from bimamba.parser import SuiteParser
from blocks.errors import SuiteError


def network_of(config: Path) -> nn.Module:
    """Builds the network of an experiment, freshly initialised.

    Args:
        config: YAML with `model.init_args.network`, such as a run's `config.yaml`.

    Raises:
        SuiteError: No such file or no network in it.
    """
    content = yaml.safe_load(config.read_text()) if config.is_file() else None
    try:
        described = content["model"]["init_args"]["network"]  # type: ignore[index]
    except (KeyError, TypeError) as error:
        raise SuiteError(
            expected="a configuration with model.init_args.network",
            found="no such key" if config.is_file() else "no such file",
            where=str(config),
            cure="name a file of configs/, or the config.yaml of a run",
        ) from error
    return build_network(described)


def build_network(described: Mapping[str, Any]) -> nn.Module:
    """Builds a network from `class_path` and `init_args`, as a YAML would.

    Args:
        described: Both, plain data.
    """
    import_wings()
    parser = SuiteParser()
    parser.add_argument("--network", type=nn.Module)
    config = parser.parse_object({"network": dict(described)})
    network: nn.Module = parser.instantiate(config).network
    return network


def with_classes(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a network that leaves its classes open (`num_classes: null`) those of some weights."""
    config = getattr(network, "pretrained_cfg", None) or {}
    weight = state.get(f"{config.get('classifier') or 'head'}.weight")
    if getattr(network, "num_classes", 0) is None and weight is not None:
        network.reset_classifier(len(weight))  # type: ignore[operator]
