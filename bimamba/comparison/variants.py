"""Which runs are seeds of one variant, in what the configurations differ, what to call each.

A configuration is compared as dotted keys, `model.init_args.optimizer.lr`, from `config.yaml`,
which holds the defaults too: a default that has changed between two runs is a difference as well.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from bimamba.run_files import RunFiles
from blocks.errors import SuiteError

SEED = "seed_everything"
# Names, places, and what shows or keeps results without changing them.
_NO_DIFFERENCE = (
    *("experiment", "run_name", "output", "debug", "resume", "ckpt_path", "weights_only"),
    *("save_top_k", "save_every_minutes", "config", "trainer.logger", "trainer.default_root_dir"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps"),
    *("trainer.enable_checkpointing", "data.init_args.root", "data.init_args.predict_root"),
)
_ABSENT = "(absent)"
# A label of more settings is longer than the row it stands for.
_MOST_SETTINGS = 4


def settings(run: RunFiles) -> dict[str, str]:
    """What a run was made of, by dotted key, apart from names and places.

    Args:
        run: The run.

    Returns:
        Values as YAML would write them on one line.
    """
    flat = dict(_flat(run.config, "")) if run.config else {}
    hidden = tuple(f"{name}." for name in _NO_DIFFERENCE)
    return {k: v for k, v in flat.items() if k not in _NO_DIFFERENCE and not k.startswith(hidden)}


def differences(runs: Sequence[RunFiles]) -> dict[str, list[str]]:
    """Keys whose value is not the same in all runs, each with the value of every run.

    Args:
        runs: The runs, in the order of the values. One without `config.yaml` has none, and makes
            no difference.
    """
    all_settings = [settings(run) for run in runs]
    keys = dict.fromkeys(key for found in all_settings for key in found)
    table = {}
    for key in keys:
        values = [found.get(key, _ABSENT) if found else "" for found in all_settings]
        if len({value for value in values if value}) > 1:
            table[key] = values
    return table


def group_runs(runs: Sequence[RunFiles], keys: Sequence[str] = ()) -> dict[str, list[RunFiles]]:
    """Runs by variant, under names made from what tells the variants apart.

    Args:
        runs: What to group.
        keys: What makes a variant: dotted keys of the configuration or their last words, such as
            `depth`, or `experiment`, or `run`. Without keys: everything but the seed; a seed that
            occurs twice in a variant gives no interval, so its runs then stand one by one.

    Raises:
        SuiteError: No configuration has the key.
    """
    if not keys:
        return _by_configuration(runs)
    resolved = [_resolve(key, runs) for key in keys]
    groups: dict[str, list[RunFiles]] = {}
    for run in runs:
        found = settings(run) | {"experiment": run.experiment, "run": run.id}
        texts = [_setting(key, found.get(key, _ABSENT), resolved) for key in resolved]
        groups.setdefault(", ".join(texts), []).append(run)
    return groups


def _by_configuration(runs: Sequence[RunFiles]) -> dict[str, list[RunFiles]]:
    table = {key: values for key, values in differences(runs).items() if key != SEED}
    groups: dict[tuple[str, ...], list[RunFiles]] = {}
    for i, run in enumerate(runs):
        variant = tuple(values[i] for values in table.values()) if run.config else (run.id,)
        groups.setdefault(variant, []).append(run)
    if any(repeated_seeds(group) for group in groups.values()):
        return _named([(_name(run, runs), [run]) for run in runs])
    experiments = [{run.experiment for run in group} for group in groups.values()]
    if len(set().union(*experiments)) == len(groups) and all(len(e) == 1 for e in experiments):
        return {group[0].experiment: group for group in groups.values()}
    named = []
    for variant, group in groups.items():
        label = _name(group[0], runs)
        if len(group) > 1:
            label = re.sub(r"-s\d+$", "", label)  # as the verbs name the runs of a variant
        if group[0].config and len(table) <= _MOST_SETTINGS:
            pairs = zip(table, variant, strict=True)
            label = ", ".join(_setting(key, text, list(table)) for key, text in pairs)
        named.append((label, group))
    return _named(named)


def _named(groups: Sequence[tuple[str, list[RunFiles]]]) -> dict[str, list[RunFiles]]:
    """Groups by name; a name that comes again, as that of a copied run does, gets a number."""
    named: dict[str, list[RunFiles]] = {}
    for label, group in groups:
        times = sum(other == label for other, _ in groups[: len(named)])
        named[f"{label} ({times + 1})" if times else label] = group
    return named


def _name(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    return run.id if len({other.experiment for other in runs}) > 1 else run.run


def repeated_seeds(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """Runs whose configuration and seed an earlier one has: the same draw, not another one.

    Args:
        runs: Runs of any variants.
    """
    seen: set[str] = set()
    repeated = []
    for run in runs:
        known = json.dumps([settings(run), run.summary.get("seed")], sort_keys=True)
        if known in seen:
            repeated.append(run)
        seen.add(known)
    return repeated


def _setting(key: str, text: str, keys: Sequence[str]) -> str:
    """`depth=4`, with as much of the key as tells it from the others; classes by their name."""
    if key in ("experiment", "run"):
        return text
    words = key.split(".")
    short = next(
        (
            name
            for name in (".".join(words[-n:]) for n in range(1, len(words)))
            if sum(other == name or other.endswith(f".{name}") for other in keys) == 1
        ),
        key,
    )
    if short.endswith("class_path"):
        text = text.rpartition(".")[2]
    with suppress(ValueError):
        text = f"{float(text):.4g}" if "." in text else text
    return f"{short}={text}"


def _resolve(key: str, runs: Sequence[RunFiles]) -> str:
    known = {name for run in runs for name in settings(run)}
    if key in known or key in ("experiment", "run"):
        return key
    ends = sorted(name for name in known if name.endswith(f".{key}"))
    if len(ends) == 1:
        return ends[0]
    by_word = {name.rpartition(".")[2]: name for name in known} | {name: name for name in known}
    near = ends or difflib.get_close_matches(key, by_word, 3, 0.6)
    raise SuiteError(
        expected="a key of the configurations, or experiment or run",
        found=f"{key}, which {'several have' if ends else 'none has'}",
        where="--group-by",
        cure=f"did you mean {' or '.join(near)}?" if near else "see config.yaml of a run",
    )


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        for i, item in enumerate(value):
            yield from _flat(item, f"{key}.{i}")
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, default=str)
