"""`bimamba export`: the network of a run as one file, for upstream's programs or for yourself."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bimamba.findings import size
from blocks.errors import SuiteError

_DESCRIPTION = """\
Writes the network alone, without optimiser and metrics. Its weights: .safetensors with the
network's constructor and the facts about its data as JSON metadata, or .pth as upstream's programs
read it (entries under `model`). Or the whole of it as a graph: .onnx, for ONNX Runtime and others,
or .pt2, an exported program of torch (load it after `import blocks.decompositions`).
"""
# What the file's suffix stands for.
_FORMATS = {"safetensors": ".safetensors", "pth": ".pth", "onnx": ".onnx", "torch_export": ".pt2"}
_GRAPHS = (".onnx", ".pt2")


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba export`.

    Returns:
        Exit status.
    """
    given = _parser().parse_args(words)
    from blocks.files import load_foreign
    from blocks.weights import write_state_dict

    path = checkpoint_of(Path(given.source))
    content = load_foreign(path)
    check_ours(content, str(path))
    state, kind = network_state(content, given.weights, str(path))
    network = content["hyper_parameters"].get("network")
    if network is None:
        raise SuiteError(
            expected="a checkpoint of one network",
            found=f"{', '.join(content['hyper_parameters']['heads'])}, trained together",
            where=str(path),
            cure="take a head out with CoTraining.standalone(name), or configure it by itself with "
            "this checkpoint as `pretrained`, and export that",
        )
    target = target_of(Path(given.to), given.format)
    if given.keys == "upstream" and target.suffix not in _GRAPHS:
        state = to_upstream(network, state)
    facts = {
        "network": network,
        "info": content["info"],
        "weights": kind,
        "epoch": content["epoch"],
        "step": content["global_step"],
    }
    if target.suffix in _GRAPHS:
        write_network(target, network, state, facts)
    else:
        write_state_dict(target, state, facts)
    console = Console(highlight=False)
    amount = sum(value.numel() for value in state.values())
    name = network["class_path"].rpartition(".")[2]
    text = f"{name} of {path}, {kind} weights after step {facts['step']}"
    console.print(f"{text}: {len(state)} entries, {amount:,} numbers", soft_wrap=True, markup=False)
    console.print(f"written: {target} ({size(target.stat().st_size)})", soft_wrap=True)
    return 0


def target_of(target: Path, format: str | None) -> Path:
    """The file to write: its suffix says the format, or gets it where it says nothing.

    Args:
        target: As asked for.
        format: As asked for, or None.

    Raises:
        SuiteError: Both say different things.
    """
    if format is None or target.suffix == _FORMATS[format]:
        return target
    if target.suffix in _FORMATS.values():
        raise SuiteError(
            expected=f"a file name that ends in {_FORMATS[format]}",
            found=target.name,
            where=f"--format {format}",
            cure="leave --format out: the suffix says it",
        )
    return target.with_name(target.name + _FORMATS[format])


def write_network(
    target: Path, described: Mapping[str, Any], state: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Builds a network, loads its weights and writes it as a graph.

    Args:
        target: `.onnx` or `.pt2`.
        described: Its `class_path` and `init_args`.
        state: Its entries.
        facts: Plain data about it; JSON in the file's metadata.
    """
    from bimamba.example_inputs import example_inputs
    from bimamba.exchange import write_graph
    from bimamba.networks import build_network, with_classes

    network = build_network(described)
    with_classes(network, state)
    network.load_state_dict(dict(state))
    network.eval()
    inputs, dynamic = example_inputs(network)
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    write_graph(target, network, inputs, dynamic, texts)


def checkpoint_of(source: Path) -> Path:
    """The checkpoint that is meant: a file itself, of a run the best one, else the last.

    Raises:
        SuiteError: The run has none.
    """
    if not source.is_dir():
        return source
    best = sorted(source.glob("checkpoints/best-*.ckpt"), key=lambda path: path.stat().st_mtime)
    last = source / "checkpoints" / "last.ckpt"
    if not best and not last.is_file():
        raise SuiteError(
            expected="a run directory with checkpoints, or a checkpoint",
            found="a folder without checkpoints/best-*.ckpt or checkpoints/last.ckpt",
            where=str(source),
            cure="name runs/EXPERIMENT/RUN of a fit, or the file itself",
        )
    return best[-1] if best else last


def check_ours(content: Any, where: str) -> None:
    """Refuses what no `fit` of this suite wrote.

    Raises:
        SuiteError: A foreign file.
    """
    known = {"schema", "state_dict", "hyper_parameters", "info"}
    if not isinstance(content, Mapping) or not known <= content.keys():
        raise SuiteError(
            expected="a checkpoint of this suite",
            found="foreign weights",
            where=where,
            cure=f"bimamba convert {where} --to FILE.safetensors reads those",
        )


def network_state(
    content: Mapping[str, Any], weights: str | None, where: str
) -> tuple[dict[str, Any], str]:
    """Entries of the network alone.

    Args:
        content: A checkpoint of ours.
        weights: `ema`, `raw`, or `None` for the average where there is one.
        where: The checkpoint, for the error.

    Returns:
        The entries by their key within the network, and which weights they are.

    Raises:
        SuiteError: The average of a run that had none.
    """
    averaged = "current_model_state" in content
    if weights == "ema" and not averaged:
        raise SuiteError(
            expected="a checkpoint of a run with EMA",
            found="one with the weights in training alone",
            where=where,
            cure="leave --weights out, or train with callbacks: EMA",
        )
    kind = weights or ("ema" if averaged else "raw")
    entries = content["current_model_state" if kind == "raw" and averaged else "state_dict"]
    prefix = "network."
    return {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}, kind


def to_upstream(network: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Upstream's keys, for a network whose own differ: it has a `to_upstream_state(state)`.

    Args:
        network: Its `class_path` and `init_args`.
        state: Its entries.
    """
    if not str(network["class_path"]).startswith(("lightning_modules.", "blocks.")):
        return state  # Others have no such method, and a file should not choose what is imported.
    from bimamba.networks import build_network

    translate = getattr(build_network(network), "to_upstream_state", None)
    return translate(state) if callable(translate) else state


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bimamba export",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="RUN|CHECKPOINT", help="a run directory (its best checkpoint) or a .ckpt"
    )
    parser.add_argument(
        "--to", required=True, metavar="FILE", help=".safetensors, .pth, .onnx or .pt2"
    )
    parser.add_argument(
        "--format", choices=tuple(_FORMATS), help="where the suffix of FILE does not say it"
    )
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        help="the moving average or the weights in training (default: ema where there is one)",
    )
    parser.add_argument(
        "--keys",
        choices=("upstream", "suite"),
        default="upstream",
        help="names of the entries: the original project's, or ours where they differ",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
