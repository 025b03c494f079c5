"""The file of an ablation, read and checked before anything is built (bimamba ablate --help)."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from blocks.errors import SuiteError

Overrides = Mapping[str, Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
# Decided for each run by the ablation; anywhere else they would contradict it.
_TAKEN = {
    "seed_everything": "list the seeds under `seeds`",
    "experiment": "set `experiment` at the top of the file",
    "run_name": "runs are named by variant, size and seed",
    "output": "use bimamba ablate --output DIR",
    "trainer.default_root_dir": "use bimamba ablate --output DIR",
    "resume": "leave it out: a run that was cut goes on by itself",
    "ckpt_path": "leave it out, or start from weights with model.init_args.pretrained",
    "trainer.fast_dev_run": "use trainer.limit_train_batches for short runs: they leave results",
    "config": "list base configurations under `config` at the top of the file",
}


@dataclass(frozen=True)
class Ablation:
    """What the file says.

    Args:
        path: The file.
        experiment: Folder of the runs below the output folder.
        config: Base configurations, merged as `bimamba fit` merges them.
        variants: Changes by the name of the variant.
        overrides: Changes for all.
        sizes: Changes by the name of the size; empty without that axis.
        seeds: One run each.
        metrics: Columns of the table before the costs; None takes what the workload monitors.
        baseline: Variant that the others are compared with, over equal seeds.
        parallel: Processes at once.
    """

    path: Path
    experiment: str
    config: tuple[Path, ...]
    variants: Mapping[str, Overrides]
    overrides: Overrides = field(default_factory=dict)
    sizes: Mapping[str, Overrides] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] | None = None
    baseline: str | None = None
    parallel: int = 1


def read_ablation(path: str | Path) -> Ablation:
    """Reads the file of an ablation.

    Args:
        path: A YAML file.

    Raises:
        SuiteError: No such file, no YAML, an unknown key, or a value of the wrong kind.
    """
    path = Path(path)
    content = _load(path)
    known = [f.name for f in fields(Ablation) if f.name != "path"]
    for key in content:
        if key not in known:
            _refuse(path, f"keys {', '.join(known)}", key, _nearest(key, known))
    for key in ("config", "variants"):
        if not content.get(key):
            _refuse(path, f"`{key}`", "a file without it", "add it; see bimamba ablate --help")
    readers: dict[str, Callable[[Path, Any], Any]] = {
        "experiment": _experiment,
        "config": _configs,
        "variants": _named("variants"),
        "overrides": _overrides("overrides"),
        "sizes": _named("sizes"),
        "seeds": _seeds,
        "metrics": _metrics,
        "baseline": _text("baseline"),
        "parallel": _parallel,
    }
    given = {key: readers[key](path, value) for key, value in content.items() if value is not None}
    ablation = Ablation(path, **{"experiment": path.stem, **given})
    if ablation.baseline is not None and ablation.baseline not in ablation.variants:
        cure = _nearest(ablation.baseline, ablation.variants)
        _refuse(path, "`baseline`: the name of a variant", ablation.baseline, cure)
    return ablation


class _Loader(yaml.SafeLoader):
    """Refuses keys that occur twice, of which YAML would drop one, and knows 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping whose keys are all different."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise _error(path, "the YAML file of an ablation", reason, "check the path") from error
    except (yaml.YAMLError, TypeError) as error:
        found = " ".join(str(error).split())
        cure = "mend that line; see bimamba ablate --help for an example"
        raise _error(path, "a YAML file", found, cure) from error
    if not isinstance(content, dict):
        _refuse(path, "keys and values", type(content).__name__, "see bimamba ablate --help")
    if "model" in content or "data" in content:
        cure = f"make a file that names it: config: {path.name}, and variants"
        _refuse(path, "the file of an ablation", "a configuration of bimamba fit", cure)
    return {str(key): value for key, value in content.items()}


def _experiment(path: Path, value: Any) -> str:
    name = _text("experiment")(path, value)
    if not _NAME.fullmatch(name):
        _refuse(path, "`experiment`: letters, digits, _ . + -", name, "choose such a name")
    return name


def _configs(path: Path, value: Any) -> tuple[Path, ...]:
    names = value if isinstance(value, list) else [value]
    found = []
    for name in names:
        file = path.parent / _text("config")(path, name)
        if not file.is_file():
            _refuse(path, "`config`: files, beside this one", str(name), f"{file} does not exist")
        found.append(file)
    return tuple(found)


def _named(key: str) -> Callable[[Path, Any], dict[str, Overrides]]:
    def read(path: Path, value: Any) -> dict[str, Overrides]:
        if not isinstance(value, dict):
            _refuse(path, f"`{key}`: a name and its changes each", repr(value), "write NAME: {}")
        for name in value:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                cure = "choose such a name; quote numbers and yes, no, on, off"
                _refuse(path, f"`{key}`: names of letters, digits, _ . + -", repr(name), cure)
        return {
            name: _overrides(f"{key}.{name}")(path, {} if given is None else given)
            for name, given in value.items()
        }

    return read


def _overrides(where: str) -> Callable[[Path, Any], Overrides]:
    def read(path: Path, value: Any) -> Overrides:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            expected = f"`{where}`: keys of the configuration and their values"
            _refuse(path, expected, repr(value), "write trainer.max_epochs: 8, for example")
        for key in _leaves(value):
            for name, cure in _TAKEN.items():
                if key == name or key.startswith(f"{name}."):
                    _refuse(path, f"`{where}` without {name}", key, cure)
        changes: Overrides = value
        return changes

    return read


def _leaves(value: Any, above: str = "") -> Iterable[str]:
    if isinstance(value, dict) and value and "class_path" not in value:
        for key, item in value.items():
            yield from _leaves(item, f"{above}.{key}" if above else str(key))
    else:
        yield above


def _seeds(path: Path, value: Any) -> tuple[int, ...]:
    fine = isinstance(value, list) and value and all(type(seed) is int for seed in value)
    if not fine or not all(0 <= seed < 2**32 for seed in value) or len({*value}) < len(value):
        _refuse(path, "`seeds`: different whole numbers", repr(value), "write seeds: [0, 1, 2]")
    return tuple(value)


def _metrics(path: Path, value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(_text("metrics")(path, name) for name in names))


def _parallel(path: Path, value: Any) -> int:
    if type(value) is not int or value < 1:
        _refuse(path, "`parallel`: a number of processes", repr(value), "write parallel: 1")
    return int(value)


def _text(key: str) -> Callable[[Path, Any], str]:
    def read(path: Path, value: Any) -> str:
        if not isinstance(value, str) or not value:
            _refuse(path, f"`{key}`: text", repr(value), "put it into quotes if it is a name")
        return str(value)

    return read


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def _refuse(path: Path, expected: str, found: str, cure: str) -> None:
    raise _error(path, expected, found, cure)


def _error(path: Path, expected: str, found: str, cure: str) -> SuiteError:
    return SuiteError(expected=expected, found=found, where=str(path), cure=cure)
