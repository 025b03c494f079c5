"""Networks as graphs for other programs: ONNX, and torch's own exported programs.

An ONNX file holds a recurrence as the operator `Scan`, a loop over time, so that one graph serves
every length and grows with none. A `.pt2` keeps it as an operator of the suite, and with it the
kernels: whoever loads it imports `blocks.decompositions` first.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.files import atomic_path

# Positional inputs by name, and for each which axes may change: axis to name.
Inputs = dict[str, Tensor]
Dynamic = dict[str, dict[int, str]]


def to_torch_export(
    network: nn.Module, inputs: Inputs, dynamic: Dynamic
) -> "torch.export.ExportedProgram":
    """The network as a graph of torch.

    Args:
        network: In evaluation mode.
        inputs: Examples, by the names of `forward`.
        dynamic: Their axes that may change, with a name for each.
    """
    # Their ranges follow from the network: a table of positions ends somewhere.
    shapes = {
        name: dict.fromkeys(dynamic.get(name, {}), torch.export.Dim.DYNAMIC) for name in inputs
    }
    from blocks.decompositions import Decomposed

    with torch.no_grad(), Decomposed():
        return torch.export.export(network, (), dict(inputs), dynamic_shapes=shapes, strict=False)


def to_onnx(network: nn.Module, inputs: Inputs, dynamic: Dynamic) -> Any:
    """The network as an ONNX program (`torch.onnx.ONNXProgram`); arguments as above.

    Raises:
        SuiteError: The exporter's packages are missing.
    """
    try:
        from bimamba.onnx_scan import translated_recurrence
    except ImportError as error:
        raise SuiteError(
            expected="onnx and onnxscript",
            found=str(error),
            where="bimamba export",
            cure="pip install -e '.[export]' -c constraints.txt",
        ) from error
    program = to_torch_export(network, inputs, dynamic)
    table: dict[Callable[..., Any], Callable[..., Any]] = {
        torch.ops.bimamba.recurrence.default: translated_recurrence
    }
    with contextlib.redirect_stdout(io.StringIO()), _quiet("torch.onnx", "onnxscript"):
        return torch.onnx.export(
            program, (), kwargs=dict(inputs), dynamo=True, custom_translation_table=table,
            input_names=list(inputs), output_names=["output"], verbose=False,
        )  # fmt: skip


def write_graph(
    path: Path, network: nn.Module, inputs: Inputs, dynamic: Dynamic, facts: Mapping[str, Any]
) -> None:
    """Writes `.onnx` or `.pt2` in one step.

    Args:
        path: Where to.
        network: In evaluation mode.
        inputs: Examples, by the names of `forward`.
        dynamic: Their axes that may change.
        facts: Strings about the network, kept with it.
    """
    texts = {key: str(value) for key, value in facts.items()}
    with atomic_path(path) as temporary:
        if path.suffix == ".onnx":
            program = to_onnx(network, inputs, dynamic)
            program.model.metadata_props.update(texts)
            program.save(str(temporary), external_data=False)
        else:
            exported = to_torch_export(network, inputs, dynamic)
            # Its writer looks at the suffix.
            named = temporary.with_suffix(".pt2")
            torch.export.save(exported, named, extra_files=texts)
            named.replace(temporary)


@contextlib.contextmanager
def _quiet(*names: str) -> Any:
    """The exporter reports its progress as warnings."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
