"""The rules of the house: who may import whom, and names that mean one thing."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bimamba.discovery import import_wings
from tests.conftest import ROOT

OURS = ("blocks", "lightning_modules", "datamodules", "benchmarks", "bimamba")
ALLOWED = {
    "blocks": ("blocks",),
    "lightning_modules": ("blocks", "lightning_modules"),
    "datamodules": ("datamodules", "blocks.files", "blocks.errors", "blocks.geometry"),
    "benchmarks": ("benchmarks", "blocks", "datamodules", "lightning_modules"),
    "bimamba": OURS,
}
SOURCES = [path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, with the imported names appended."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package, *inner = path.relative_to(ROOT).parts
    for name in imports(path):
        if name.split(".")[0] not in OURS:
            continue
        assert name.startswith(ALLOWED[package]), f"{path} imports {name}"
        wing = inner[0] if len(inner) > 1 else None
        if package in {"lightning_modules", "datamodules"} and wing and name.startswith(package):
            parts = name.split(".")
            other = len(parts) > 2 and (ROOT / package / parts[1]).is_dir() and parts[1] != wing
            assert not other, f"{path} reaches into another wing: {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_about_one_idea(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "a file says on top what it is"


def test_packages_come_from_this_checkout() -> None:
    for package in OURS:
        module = importlib.import_module(package)
        assert Path(str(module.__file__)).is_relative_to(ROOT)


def test_public_class_names_are_unique_even_beside_timm_and_transformers() -> None:
    import timm.layers
    import timm.models
    import torch.nn
    import transformers

    ours: dict[str, str] = {}
    blocks = importlib.import_module("blocks")
    for package in (blocks, *import_wings()):
        for name in package.__all__:
            value = getattr(package, name)
            if not isinstance(value, type):
                continue
            home = f"{value.__module__}.{value.__qualname__}"
            assert ours.setdefault(name, home) == home, f"{name} is {ours[name]} and {home}"
    # A YAML names networks, modules, datamodules and callbacks: these must be unmistakable.
    named = {
        n for wing in import_wings() for n in wing.__all__ if isinstance(getattr(wing, n), type)
    }
    foreign = {*dir(timm.models), *dir(torch.nn), *dir(transformers)}
    assert not named & foreign


def test_every_public_name_exists() -> None:
    packages = [importlib.import_module("blocks"), importlib.import_module("blocks.scan")]
    for package in (*packages, *import_wings()):
        assert package.__all__ == sorted(package.__all__), package.__name__
        for name in package.__all__:
            assert getattr(package, name) is not None


def test_every_module_imports_on_its_own() -> None:
    names = [
        found.name
        for package in OURS
        for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
        if not found.name.endswith("__main__")
    ]
    assert len(names) > 30
    for name in names:
        importlib.import_module(name)


def test_our_code_draws_in_no_heavy_library_before_it_is_used() -> None:
    code = (
        "import sys, bimamba.discovery as d; d.import_wings(); "
        "found = {'timm', 'wandb', 'diffusers', 'sklearn', 'plotly', 'pandas'}"
        " & sys.modules.keys(); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
