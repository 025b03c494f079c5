"""Rows of facts that page and Markdown share: the set-up of a group of runs, and their cost."""

from collections.abc import Iterable, Mapping
from typing import Any

from bimamba.formats import duration, memory, short
from bimamba.reporting.contents import Group
from bimamba.run_files import RunFiles


def setup_rows(group: Group) -> list[list[str]]:
    """What was trained on what, how, where and with which versions, as far as all runs agree.

    Args:
        group: The runs.
    """
    rows = {
        "workload": _common(run.summary.get("workload") for run in group.runs),
        "data": _common(_data(run) for run in group.runs),
        "hash of the data": _common(run.section("data").get("hash") for run in group.runs),
        "protocol": _common(run.summary.get("protocol") for run in group.runs),
        "optimiser": _common(_part(run, "optimizer") for run in group.runs),
        "schedule": _common(_part(run, "schedule") for run in group.runs),
        "batch size": _common(_argument(run, "data", "batch_size") for run in group.runs),
        "length": _common(_length(run) for run in group.runs),
        "precision": _common(_trainer(run, "precision") for run in group.runs),
        "seeds": ", ".join(dict.fromkeys(str(run.summary.get("seed")) for run in group.runs)),
        "device": _common(run.summary.get("device") for run in group.runs),
        "processes": _common(run.summary.get("processes") for run in group.runs),
        "versions": _common(_versions(run) for run in group.runs),
        "revision": _common(_revision(run) for run in group.runs),
    }
    return [[name, text] for name, text in rows.items() if text]


def cost_rows(group: Group) -> list[list[str]]:
    """A row for each run: size, time, speed, memory, energy; the heading first.

    Args:
        group: The runs.
    """
    heads = ["run", "parameters", "MACs", "time", "samples/s", "peak memory", "energy"]
    rows = [heads]
    for run in group.runs:
        joules = run.number("joules")
        rows.append(
            [
                run.id,
                _or_empty(run, "params", short),
                _or_empty(run, "macs", short),
                _or_empty(run, "seconds", duration),
                _or_empty(run, "samples_per_second", short),
                _or_empty(run, "peak_memory", memory),
                "not readable" if joules is None else f"{joules / 3600:.3g} Wh",
            ]
        )
    return rows


def _or_empty(run: RunFiles, name: str, form: Any) -> str:
    value = run.number(name)
    return "" if value is None else str(form(value))


def _common(values: Iterable[Any]) -> str:
    """One text if all agree, else all of them with what they are."""
    texts = list(dict.fromkeys(str(value) for value in values if value not in (None, "", {})))
    return texts[0] if len(texts) == 1 else "differs: " + "; ".join(texts) if texts else ""


def _data(run: RunFiles) -> str:
    data = run.section("data")
    kind = "embedded synthetic set" if data.get("synthetic") else ""
    return ", ".join(text for text in (str(data.get("root") or ""), kind) if text)


def _part(run: RunFiles, name: str) -> str:
    found = _argument(run, "model", name)
    if not isinstance(found, Mapping):
        return ""
    given = {key: value for key, value in found.items() if value not in (None, [], {})}
    return ", ".join(f"{key} {value}" for key, value in given.items())


def _argument(run: RunFiles, section: str, name: str) -> Any:
    part = run.config.get(section)
    arguments = part.get("init_args") if isinstance(part, Mapping) else None
    return arguments.get(name) if isinstance(arguments, Mapping) else None


def _trainer(run: RunFiles, name: str) -> Any:
    trainer = run.config.get("trainer")
    return trainer.get(name) if isinstance(trainer, Mapping) else None


def _length(run: RunFiles) -> str:
    steps, epochs = run.number("steps"), run.number("epochs")
    return f"{short(epochs)} epochs, {short(steps)} steps" if steps else "evaluation only"


def _versions(run: RunFiles) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.section("versions").items())


def _revision(run: RunFiles) -> str:
    git = run.section("git")
    dirty = ", with changes that were not committed" if git.get("dirty") else ""
    return f"{git['rev'][:12]}{dirty}" if git.get("rev") else ""
