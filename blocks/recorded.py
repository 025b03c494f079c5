"""Networks and workloads remember how they were built, as plain data.

A checkpoint can then hold `{class_path, init_args}` instead of a pickled module, and whoever loads
it rebuilds the module from its constructor, whether it was made in Python or from a YAML.
"""

import contextlib
import dataclasses
import inspect
from pathlib import Path
from typing import Any, Self

from blocks.errors import SuiteError


class Recorded:
    """Mixin that keeps the constructor call of the concrete class in `init_call`.

    Recording in `__new__` sees the outermost call exactly once, whatever `__init__`s follow.
    """

    init_call: dict[str, Any]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Records the arguments, then builds the object as usual."""
        instance = super().__new__(cls)
        record_call(instance, *args, **kwargs)
        return instance


def record_call(instance: object, *args: object, **kwargs: object) -> None:
    """Stores the constructor call of `instance` as `{class_path, init_args}`, defaults included.

    Defaults that are no plain data, such as a class of layers, stay the constructor's own affair.

    Args:
        instance: A new object of any class; the command records third-party networks with it.
        *args: Positional arguments of its constructor.
        **kwargs: Keyword arguments of its constructor.
    """
    cls = type(instance)
    signature = inspect.signature(cls.__init__)
    try:
        bound = signature.bind(instance, *args, **kwargs)
    except TypeError:
        # Unpickling calls __new__ bare and restores init_call with the rest of the state; a wrong
        # call is about to fail in __init__ with Python's own message.
        return
    init_args: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            init_args |= plain(bound.arguments.get(name, {}), name)
        elif name in bound.arguments:
            if parameter.kind is parameter.VAR_POSITIONAL:
                raise SuiteError(
                    expected="arguments with names, for init_args is a dict",
                    found=f"{bound.arguments[name]}",
                    where=f"constructor argument *{name} of {cls.__qualname__}",
                    cure=f"take a list instead: def __init__(self, {name}: Sequence[...])",
                )
            init_args[name] = plain(bound.arguments[name], name)
        elif parameter.default is not parameter.empty:
            with contextlib.suppress(SuiteError):
                init_args[name] = plain(parameter.default, name)
    # Past nn.Module.__setattr__, which wants __init__ to have run.
    instance.__dict__["init_call"] = {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": init_args,
    }


def plain(value: object, name: str = "value") -> Any:
    """Turns constructor arguments into numbers, strings, lists and dicts.

    Args:
        value: A primitive, a container, a dataclass, a path or a `Recorded` object.
        name: What the value is called in the error.

    Raises:
        SuiteError: `value` is of another kind, so no checkpoint could rebuild it.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item, f"{name}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: plain(getattr(value, f.name), f"{name}.{f.name}") for f in fields}
    if isinstance(value, Path):
        return str(value)
    if "init_call" in getattr(value, "__dict__", {}):
        return value.__dict__["init_call"]
    raise SuiteError(
        expected="a number, string, list, dict, dataclass or a network that records its call",
        found=f"{type(value).__module__}.{type(value).__qualname__}",
        where=f"constructor argument {name}",
        cure="let the class inherit from blocks.Recorded first: class Net(Recorded, nn.Module)",
    )
