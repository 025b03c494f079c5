"""YAML files that describe several runs, of `ablate` and `sweep`: read, and each value checked."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from blocks.errors import SuiteError

Overrides = Mapping[str, Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
# Decided for each run; anywhere else they would contradict it.
_TAKEN = {
    "seed_everything": "list the seeds under `seeds`",
    "experiment": "set `experiment` at the top of the file",
    "run_name": "leave it out: runs are named after what they try",
    "output": "use --output DIR",
    "trainer.default_root_dir": "use --output DIR",
    "resume": "leave it out: a run that was cut goes on by itself",
    "ckpt_path": "leave it out, or start from weights with model.init_args.pretrained",
    "trainer.fast_dev_run": "use trainer.limit_train_batches for short runs: they leave results",
    "config": "list base configurations under `config` at the top of the file",
}


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


@dataclass(frozen=True)
class ExperimentFile:
    """A file on its way to becoming a description. Whatever is wrong is a SuiteError.

    Args:
        path: The file.
        verb: Whose it is: `ablate` or `sweep`.
        axis: Its key without which it is a configuration of `fit`: `variants`, `space`.
    """

    path: Path
    verb: str
    axis: str

    def load(self, known: Iterable[str]) -> dict[str, Any]:
        """The file's keys and values; `config` and the axis are among them.

        Args:
            known: Keys that it may have.
        """
        see = f"see bimamba {self.verb} --help"
        try:
            content = yaml.load(self.path.read_text(encoding="utf-8"), _Loader)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise self._error(
                f"the YAML file of bimamba {self.verb}", reason, "check the path"
            ) from error
        except (yaml.YAMLError, TypeError) as error:
            found = " ".join(str(error).split())
            raise self._error("a YAML file", found, f"mend that line; {see}") from error
        if not isinstance(content, dict):
            self.refuse("keys and values", type(content).__name__, see)
        if "model" in content or "data" in content:
            self.refuse(
                f"the file of bimamba {self.verb}",
                "a configuration of bimamba fit",
                f"make a file that names it: config: {self.path.name}, and {self.axis}",
            )
        known = list(known)
        for key in content:
            if key not in known:
                self.refuse(f"keys {', '.join(known)}", str(key), nearest(str(key), known))
        for key in ("config", self.axis):
            if not content.get(key):
                self.refuse(f"`{key}`", "a file without it", f"add it; {see}")
        return {key: value for key, value in content.items() if value is not None}

    def experiment(self, value: Any) -> str:
        """A name that can be that of a folder."""
        name = self.text("experiment", value)
        if not _NAME.fullmatch(name):
            self.refuse("`experiment`: letters, digits, _ . + -", name, "choose such a name")
        return name

    def configs(self, value: Any) -> tuple[Path, ...]:
        """One file or several, which lie beside this one."""
        found = []
        for name in value if isinstance(value, list) else [value]:
            file = self.path.parent / self.text("config", name)
            if not file.is_file():
                self.refuse("`config`: files, beside this one", str(name), f"{file} does not exist")
            found.append(file)
        return tuple(found)

    def named(self, key: str, value: Any) -> dict[str, Overrides]:
        """Changes of the configuration by a name."""
        if not isinstance(value, dict):
            self.refuse(f"`{key}`: a name and its changes each", repr(value), "write NAME: {}")
        for name in value:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                cure = "choose such a name; quote numbers and yes, no, on, off"
                self.refuse(f"`{key}`: names of letters, digits, _ . + -", repr(name), cure)
        return {
            name: self.overrides(f"{key}.{name}", {} if given is None else given)
            for name, given in value.items()
        }

    def overrides(self, key: str, value: Any) -> Overrides:
        """Changes of the configuration, none of which is decided elsewhere."""
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            expected = f"`{key}`: keys of the configuration and their values"
            self.refuse(expected, repr(value), "write trainer.max_epochs: 8, for example")
        for leaf in _leaves(value):
            for name, cure in _TAKEN.items():
                if leaf == name or leaf.startswith(f"{name}."):
                    self.refuse(f"`{key}` without {name}", leaf, cure)
        changes: Overrides = value
        return changes

    def seeds(self, value: Any) -> tuple[int, ...]:
        """Different whole numbers."""
        fine = isinstance(value, list) and value and all(type(seed) is int for seed in value)
        if not fine or not all(0 <= seed < 2**32 for seed in value) or len({*value}) < len(value):
            self.refuse("`seeds`: different whole numbers", repr(value), "write seeds: [0, 1, 2]")
        return tuple(value)

    def texts(self, key: str, value: Any) -> tuple[str, ...]:
        """One word or several, each once."""
        names = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(self.text(key, name) for name in names))

    def text(self, key: str, value: Any) -> str:
        """A word."""
        if not isinstance(value, str) or not value:
            self.refuse(f"`{key}`: text", repr(value), "put it into quotes if it is a name")
        return value

    def choice(self, key: str, value: Any, known: Iterable[str]) -> str:
        """One of several words."""
        known = list(known)
        if value not in known:
            cure = nearest(str(value), known)
            self.refuse(f"`{key}`: one of {', '.join(known)}", repr(value), cure)
        return str(value)

    def count(self, key: str, value: Any, what: str, least: int = 1) -> int:
        """A whole number that is not too small."""
        if type(value) is not int or value < least:
            self.refuse(f"`{key}`: {what}", repr(value), f"write {key}: {least}, for example")
        return int(value)

    def refuse(self, expected: str, found: str, cure: str) -> NoReturn:
        """Raises the error."""
        raise self._error(expected, found, cure)

    def _error(self, expected: str, found: str, cure: str) -> SuiteError:
        return SuiteError(expected=expected, found=found, where=str(self.path), cure=cure)


def load_plain(path: Path) -> dict[str, Any]:
    """The keys of any YAML file, to see what it is for.

    Args:
        path: The file.

    Raises:
        SuiteError: No such file, or none with keys.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        found = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SuiteError(
            expected="a YAML file", found=found, where=str(path), cure="check the path"
        ) from error
    return content if isinstance(content, dict) else {}


def nearest(word: str, known: Iterable[str]) -> str:
    """What somebody may have meant, as a cure.

    Args:
        word: What was written.
        known: What there is.
    """
    known = list(known)
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def _leaves(value: Any, above: str = "") -> Iterable[str]:
    if isinstance(value, dict) and value and "class_path" not in value:
        for key, item in value.items():
            yield from _leaves(item, f"{above}.{key}" if above else str(key))
    else:
        yield above
