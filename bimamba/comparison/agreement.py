"""May these runs stand in one table? Only if the same was measured on the same data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bimamba.run_files import RunFiles
from blocks.errors import SuiteError

_MOST_NAMES = 3


def check_comparable(runs: Sequence[RunFiles]) -> None:
    """Refuses runs of different workloads, data sets or evaluation protocols.

    The same data in another place are the same data: where every run knows the hash of what it
    read, the folder does not matter.

    Args:
        runs: What is to be compared.

    Raises:
        SuiteError: They differ, with what each says.
    """
    hashed = all(run.section("data").get("hash") for run in runs)
    facets: dict[str, Callable[[RunFiles], str]] = {
        "workload": lambda run: str(run.summary.get("workload") or "unknown"),
        "data": lambda run: _data(run.section("data"), hashed),
        "protocol": _protocol,
    }
    for name, facet in facets.items():
        found: dict[str, list[str]] = {}
        for run in runs:
            found.setdefault(facet(run), []).append(run.id)
        if len(found) > 1:
            raise SuiteError(
                expected=f"runs of one {name}; numbers of different ones do not compare",
                found="; ".join(f"{text} ({_names(ids)})" for text, ids in found.items()),
                where="the runs to compare",
                cure="compare them in groups of their own",
            )


def _data(data: Mapping[str, Any], hashed: bool) -> str:
    kind = "embedded data" if data.get("synthetic") else "data"
    return f"{kind} of hash {data['hash']}" if hashed else f"{kind} at {data.get('root')}"


def _protocol(run: RunFiles) -> str:
    """The protocol, and how much of the evaluation data it was applied to."""
    text = str(run.summary.get("protocol") or "none recorded")
    trainer = run.config.get("trainer")
    logged = {*run.metrics("best"), *run.metrics("last")}
    for stage in ("val", "test"):
        limit = trainer.get(f"limit_{stage}_batches") if isinstance(trainer, Mapping) else None
        # The whole number 1 is one batch, the fraction 1.0 is all of them.
        everything = limit is None or (isinstance(limit, float) and limit == 1)
        if not everything and any(name.startswith(f"{stage}/") for name in logged):
            text += f", limit_{stage}_batches {limit}"
    return text


def _names(ids: Sequence[str]) -> str:
    more = len(ids) - _MOST_NAMES
    return ", ".join(ids[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
