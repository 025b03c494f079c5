"""One searched key: the values it may take, in the file, in a trial, on a grid, in W&B."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bimamba.experiment_file import ExperimentFile

if TYPE_CHECKING:
    import optuna

_FORMS = "a list of values, {choice: [...]}, {range: [low, high]} or {log_range: [low, high]}"


@dataclass(frozen=True)
class Dimension:
    """A key of the configuration and where it is searched.

    Args:
        key: Dotted, as in the configuration.
        choices: Its values; empty for a range.
        low: Least value of a range.
        high: Greatest value, which belongs to the range.
        log: Whether the range is searched by its logarithm.
        step: Distance of the values of a range from each other.
        points: Points of the range on a grid.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    points: int | None = None

    @property
    def whole(self) -> bool:
        """Whether a range holds whole numbers only, as its ends do."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def labels(self) -> dict[Any, Any]:
        """Choices by what stands for them: numbers and words by themselves, others as JSON."""
        return {c if _plain(c) else json.dumps(c, sort_keys=True): c for c in self.choices}

    def suggest(self, trial: "optuna.Trial") -> None:
        """Lets the study choose a value.

        Args:
            trial: The trial that needs one.
        """
        if self.choices:
            trial.suggest_categorical(self.key, tuple(self.labels()))
        elif self.whole:
            step = 1 if self.step is None else int(self.step)
            trial.suggest_int(self.key, int(self.low), int(self.high), step=step, log=self.log)
        else:
            trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def value(self, chosen: Any) -> Any:
        """The value in the configuration.

        Args:
            chosen: What the study knows it by.
        """
        return self.labels()[chosen] if self.choices else chosen

    def ends(self) -> tuple[Any, ...]:
        """Values to try the configuration with: every choice, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def grid(self) -> list[Any] | None:
        """Values on a grid, as the study knows them; None for a range without points."""
        if self.choices:
            return list(self.labels())
        if self.points is None:
            if self.step is None:
                return None
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            values = [self.low + i * self.step for i in range(count)]
        else:
            share = [i / max(self.points - 1, 1) for i in range(self.points)]
            low, high = (math.log(x) if self.log else x for x in (self.low, self.high))
            values = [low + s * (high - low) for s in share]
            values = [math.exp(v) for v in values] if self.log else values
            values = [min(max(v, self.low), self.high) for v in values]
        return list(dict.fromkeys(round(v) for v in values)) if self.whole else values

    def wandb(self) -> dict[str, Any]:
        """The key of a W&B sweep."""
        if self.choices:
            return {"values": list(self.choices)}
        distribution = "log_uniform_values" if self.log else "uniform"
        if self.whole:
            distribution = "q_log_uniform_values" if self.log else "int_uniform"
        if self.step is not None:
            distribution = "q_uniform"
        found = {"distribution": distribution, "min": self.low, "max": self.high}
        if distribution.startswith("q_"):
            found["q"] = self.step or 1
        return found


def read_dimension(file: ExperimentFile, key: str, value: Any) -> Dimension:
    """Reads one key of the space.

    Args:
        file: The file, for its errors.
        key: Dotted key of the configuration.
        value: What the file says of it.
    """
    where = f"`space.{key}`"
    if isinstance(value, list):
        value = {"choice": value}
    kinds = {"choice", "range", "log_range"} & set(value) if isinstance(value, dict) else set()
    if len(kinds) != 1 or not set(value) <= kinds | {"step", "points"}:
        file.refuse(f"{where}: {_FORMS}", repr(value), "write it so")
    kind = kinds.pop()
    if kind == "choice":
        return _choice(file, key, value)
    ends = value[kind]
    fine = isinstance(ends, list) and len(ends) == 2 and all(_number(end) for end in ends)
    if not fine or not ends[0] < ends[1] or (kind == "log_range" and ends[0] <= 0):
        least = ", both above 0" if kind == "log_range" else ""
        cure = "write the lower end first" if fine else "write two numbers"
        file.refuse(f"{where}: {kind}: [low, high]{least}", repr(ends), cure)
    step, points = value.get("step"), value.get("points")
    if step is not None and (kind == "log_range" or not _number(step) or step <= 0):
        file.refuse(f"{where}: step, a number above 0 in a range", repr(step), "correct it")
    if points is not None:
        file.count(f"space.{key}.points", points, "points of a grid")
    low, high = ends if all(type(end) is int for end in ends) else map(float, ends)
    return Dimension(key, (), low, high, kind == "log_range", step, points)


def _choice(file: ExperimentFile, key: str, value: dict[str, Any]) -> Dimension:
    choices = value["choice"]
    if not isinstance(choices, list) or not choices or set(value) != {"choice"}:
        file.refuse(f"`space.{key}`: choice: values", repr(value), "write choice: [1, 2, 3]")
    found = Dimension(key, tuple(choices))
    # True equals 1: such a pair would be one choice.
    if len(found.labels()) < len(choices):
        file.refuse(f"`space.{key}`: different values", repr(choices), "leave repetitions out")
    return found


def text_of(chosen: Any) -> str:
    """A chosen value in a table.

    Args:
        chosen: Number or word.
    """
    return f"{chosen:.4g}" if isinstance(chosen, float) else str(chosen)


def short_names(keys: Mapping[str, Any]) -> list[str]:
    """Last words of keys, with as many before them as tell them apart.

    Args:
        keys: Dotted.
    """
    names = []
    for key in keys:
        words, count = key.split("."), 1
        while sum(f".{other}".endswith("." + ".".join(words[-count:])) for other in keys) > 1:
            count += 1
        names.append(".".join(words[-count:]))
    return names


def dotted(config: Any, above: str = "") -> Sequence[str]:
    """Every key of a configuration, dotted, those of whole subtrees too.

    Args:
        config: Nested mappings.
        above: What stands before the keys.
    """
    if not isinstance(config, dict):
        return []
    keys = [f"{above}{key}" for key in config]
    for key, value in config.items():
        keys += dotted(value, f"{above}{key}.")
    return keys


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
