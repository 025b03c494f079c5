"""Finds the wings: every package under `lightning_modules` and `datamodules`.

Importing them makes their classes known by bare name in a YAML. A new workload is found by being
there; nothing is registered.
"""

import importlib
import pkgutil
from types import ModuleType

import datamodules
import lightning_modules


def import_wings() -> list[ModuleType]:
    """Imports every wing and returns its packages, modules first."""
    wings = []
    for floor in (lightning_modules, datamodules):
        for found in pkgutil.iter_modules(floor.__path__, f"{floor.__name__}."):
            module = importlib.import_module(found.name)  # Callbacks too, for YAMLs name them.
            if found.ispkg:
                wings.append(module)
    return wings


def public_classes() -> dict[str, type]:
    """Public classes of all wings by name, for hints about mistyped ones."""
    return {
        name: getattr(wing, name)
        for wing in import_wings()
        for name in getattr(wing, "__all__", ())
        if isinstance(getattr(wing, name), type)
    }
