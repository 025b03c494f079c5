"""`bimamba convert`: released weights, which are pickles, into safetensors, which cannot run."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bimamba.findings import size
from blocks.errors import SuiteError

_DESCRIPTION = """\
Reads weights of Vim, VMamba, DeiT, timm or a checkpoint of ours without running their pickle, says
what they are, and writes them under their own keys. The result is a file for `pretrained`.
"""


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba convert`.

    Returns:
        Exit status.
    """
    given = _parser().parse_args(words)
    from bimamba.recognition import recognise
    from blocks.files import load_foreign
    from blocks.weights import pick_state_dict, write_state_dict

    source, target = Path(given.source), Path(given.to)
    if target.suffix != ".safetensors":
        raise SuiteError(
            expected="a file name that ends in .safetensors",
            found=target.name,
            where="--to",
            cure=f"write --to {target.with_suffix('.safetensors')}",
        )
    content = load_foreign(source)
    state, place = pick_state_dict(content, given.weights, str(source))
    family = recognise(state)
    console = Console(highlight=False)
    facts: dict[str, Any] = {"family": family.name, "size": family.size}
    facts |= {"source": source.name, "weights": given.weights}
    if isinstance(content, Mapping) and isinstance(content.get("epoch"), int):
        facts["epoch"] = content["epoch"]
    _line(console, "family", f"{family.name}, {family.size}".removesuffix(", "))
    _line(console, "weights", f"{given.weights}: {_amount(state)}")
    if "epoch" in facts:
        _line(console, "epoch", str(facts["epoch"]))
    if place and (rest := [str(key) for key in content if key not in {place, *facts}]):
        _line(console, "left out", ", ".join(rest))
    if given.network is not None:
        state, report = _through_network(given.network, state, str(source))
        _line(console, "network", report)
    write_state_dict(target, state, facts)
    console.print(f"written: {target} ({size(target.stat().st_size)})", soft_wrap=True)
    return 0


def _through_network(config: str, state: dict[str, Any], source: str) -> tuple[dict[str, Any], str]:
    """Loads the weights into the network of a configuration and takes them from there.

    Old keys get their new names and positions the size of the network's images; what does not fit
    is refused.
    """
    from bimamba.networks import network_of, with_classes
    from blocks.weights import load_weights

    network = network_of(Path(config))
    with_classes(network, state)
    if callable(adapt := getattr(network, "adapt_state_dict", None)):
        state = adapt(state)
    report = load_weights(network, state, source=source)
    return (
        network.state_dict(),
        f"{type(network).__name__} of {config}: {report.fraction:.1%} match",
    )


def _amount(state: Mapping[str, Any]) -> str:
    return f"{len(state)} entries, {sum(value.numel() for value in state.values()):,} numbers"


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"{name:<9} {text}", soft_wrap=True, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bimamba convert",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help=".pth, .pt, .ckpt, .bin or .safetensors")
    parser.add_argument("--to", required=True, metavar="FILE.safetensors", help="what to write")
    parser.add_argument(
        "--weights",
        choices=("model", "model_ema"),
        default="model",
        help="the trained weights or their moving average (default: model)",
    )
    parser.add_argument(
        "--network",
        metavar="CONFIG.yaml",
        help="fit them to the network of this configuration: new names for old keys, positions "
        "resized to its images; refused if they do not match",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
