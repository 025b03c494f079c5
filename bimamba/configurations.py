"""Configurations of many runs, accepted by the command's own parser before the first one starts."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bimamba.ablation.merging import merge
from bimamba.cli import SuiteCLI, run
from bimamba.parser import SuiteParser
from blocks.errors import SuiteError
from lightning_modules.workload import Workload


class _Parsed(SuiteCLI):
    """The command up to the parsed configuration; nothing is built."""

    def before_instantiate_classes(self) -> None:
        """Looks for no checkpoint."""

    def instantiate_classes(self) -> None:
        """Builds nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs nothing."""

    def _set_seed(self) -> None:
        """Leaves this process as it is."""


def parse_base(files: Sequence[Path]) -> tuple[Any, dict[str, Any]]:
    """The parser of `fit`, and the merged configuration with its defaults.

    Args:
        files: Merged as `bimamba fit` merges them.
    """
    words = [word for path in files for word in ("--config", str(path))]
    with warnings.catch_warnings():  # That this process has words of its own.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        cli = run(["fit", *words], _Parsed)
    parser = cli._parser("fit")
    return parser, _dump(parser, cli.config["fit"])


def parse(parser: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Completes a configuration.

    Args:
        parser: From `parse_base`.
        config: Nested keys and values.

    Raises:
        SuiteError: The command does not accept it.
    """
    config = merge(config, {"trainer.default_root_dir": None})
    return _dump(parser, parser.parse_object(config))


def _dump(parser: Any, config: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = json.loads(parser.dump(config, format="json", skip_unset=False))
    return {key: value for key, value in dumped.items() if key != "config"}


def count_parameters(model: Mapping[str, Any]) -> int | None:
    """Builds the network without memory, which finds wrong arguments as well.

    Args:
        model: Configuration of the workload.

    Returns:
        Parameters; None for a network that must see numbers while it is built.
    """
    parser = SuiteParser()
    parser.add_subclass_arguments(Workload, "model")
    try:
        with torch.device("meta"):
            workload = parser.instantiate(parser.parse_object({"model": model})).model
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, SuiteError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        if "meta" in str(error).lower():  # A network that must see numbers while it is built.
            return None
        raise SuiteError(
            expected="a network that can be built",
            found=_first_line(error),
            where="model",
            cure="compare its arguments with --print_config",
        ) from error
    count: int = sum(p.numel() for p in workload.network.parameters())
    return count


def _first_line(error: Exception) -> str:
    """What went wrong, without jsonargparse's account of all that it tried."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a <class")
    told = [line for line in lines if line and not line.startswith(noise)]
    return told[0] if told else type(error).__name__
