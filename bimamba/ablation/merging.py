"""Changes laid over a configuration: dotted keys, whole classes, lists that grow."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lays changes over a configuration, neither of which is altered.

    Mappings merge key by key. One that names a `class_path` takes the place of the whole subtree:
    a variant states its classes in full, and inherits no argument by coincidence of names. `key+`
    appends to a list.

    Args:
        base: A configuration.
        changes: Keys as in the configuration, or dotted: `trainer.max_epochs`.
    """
    return _merge(base, expand(changes))


def expand(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes with dotted keys as nested mappings; where two speak of one key the later one wins.

    Args:
        changes: Only keys of the first level may be dotted: an argument may itself be a mapping
            with dots in its keys.
    """
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        *above, last = key.split(".")
        inner: Any = {last: value}
        for word in reversed(above):
            inner = {word: inner}
        nested = _union(nested, inner)
    return nested


def leaves(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by short names for a reader: `model.network.depth`, and classes by theirs.

    Args:
        changes: Nested mappings.
        above: What stands before the names.
    """
    for key, value in changes.items():
        name = above if key in ("init_args", "class_path") else f"{above}.{key}".lstrip(".")
        if isinstance(value, Mapping) and value:
            yield from leaves(value, name)
        else:
            yield name, value.rpartition(".")[2] if key == "class_path" else value


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {**one}
    for key, value in other.items():
        old = both.get(key)
        mappings = isinstance(value, Mapping) and isinstance(old, Mapping)
        both[key] = _union(old, value) if mappings else value  # type: ignore[arg-type]
    return both


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**copy.deepcopy(dict(base))}
    for key, value in changes.items():
        old = merged.get(key)
        if key.endswith("+") and isinstance(merged.get(key[:-1]), list | None):
            more = value if isinstance(value, list) else [value]
            merged[key[:-1]] = [*(merged.get(key[:-1]) or ()), *copy.deepcopy(more)]
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and "class_path" not in value:
            merged[key] = _merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
