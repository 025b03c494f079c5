"""Installed packages, looked at without importing those that a bad pair would crash.

A torchvision built for another torch fails when it is imported, and takes lightning, timm and
torchmetrics with it, which all import it. So here its library is loaded alone, as torchvision
itself would load it. Likewise mamba-ssm and causal-conv1d: their parents import without their
kernels, or fail because of them, so the kernels are what is tried.
"""

import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

from bimamba.findings import Finding

_REINSTALL = "pip install --upgrade -e . -c constraints.txt (or make setup)"
_PAIR = (
    "install torch and torchvision as a pair from the same index: "
    "pip install --upgrade torch torchvision -c constraints.txt"
)
_SHOWN = ("torch", "torchvision", "lightning", "timm", "numba", "triton")
# Distribution, package, and the compiled module that its kernels live in.
_KERNELS = (
    ("mamba-ssm", "mamba_ssm", "selective_scan_cuda"),
    ("causal-conv1d", "causal_conv1d", "causal_conv1d_cuda"),
)


def look_at_packages() -> list[Finding]:
    """Versions, the suite's requirements, the torch pair and optional kernels of others."""
    return [versions(), requirements(), torch_pair(), *map(kernels, *zip(*_KERNELS, strict=True))]


def versions() -> Finding:
    """Python's version and those that matter most for a report of a problem."""
    found = [f"python {platform.python_version()}"]
    found += [f"{name} {_version(name) or 'absent'}" for name in _SHOWN]
    return Finding("versions", ", ".join(found))


def requirements(distribution: str = "bimamba-suite") -> Finding:
    """Whether all that the suite asks for is there, in versions that it accepts.

    Args:
        distribution: Whose requirements to look at, extras left out.
    """
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        text = f"{distribution} is not installed, only found as a folder"
        return Finding("requirements", text, "warning", _REINSTALL)
    wanted = [Requirement(line) for line in lines]
    wanted = [want for want in wanted if want.marker is None or want.marker.evaluate({"extra": ""})]
    wrong = []
    for want in wanted:
        found = _version(want.name)
        if found is None:
            wrong.append(f"{want.name} is missing")
        elif not want.specifier.contains(found, prereleases=True):
            wrong.append(f"{want.name} {found} is not {want.specifier}")
    if wrong:
        return Finding("requirements", "; ".join(wrong), "broken", _REINSTALL)
    return Finding("requirements", f"all {len(wanted)} packages in accepted versions")


def torch_pair() -> Finding:
    """Whether torchvision's library fits torch, found out without importing torchvision."""
    try:
        import torch
    except Exception as error:  # A damaged installation raises almost anything.
        return Finding("torch", f"does not import: {_first_line(error)}", "broken", _REINSTALL)
    names = f"torch {torch.__version__} with torchvision {_version('torchvision') or '?'}"
    if "torchvision" in sys.modules:
        return Finding("torch pair", f"{names}: fit together")
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return Finding("torch pair", f"torch {torch.__version__}, no torchvision", "broken", _PAIR)
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    # _C.so up to 0.27, _C_stable.so since; .pyd or .dll on Windows.
    libraries = [path for folder in folders for path in sorted(folder.glob("_C*")) if _binary(path)]
    if not libraries:
        return Finding("torch pair", f"{names}, which has no library of operators", "broken", _PAIR)
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except Exception as error:
        return Finding("torch pair", f"{names}: {_first_line(error)}", "broken", _PAIR)
    return Finding("torch pair", f"{names}: fit together")


def kernels(distribution: str, package: str, extension: str) -> Finding:
    """Whether an optional CUDA package is absent, works, or is only half there.

    Args:
        distribution: Its name for pip.
        package: Its name for import; not imported.
        extension: Its compiled module.
    """
    if importlib.util.find_spec(package) is None:
        return Finding(distribution, "absent; optional, nothing here needs it")
    name = f"{distribution} {_version(distribution) or ''}".strip()
    cure = f"pip uninstall {distribution}, or build it anew with make setup-cuda (needs nvcc)"
    if importlib.util.find_spec(extension) is None:
        text = f"{name} is half installed: built without its kernels ({extension} is missing)"
        return Finding(distribution, text, "warning", cure)
    try:
        import torch  # noqa: F401  The kernels link against its libraries.

        importlib.import_module(extension)
    except Exception as error:
        text = f"{name} is half installed: {extension} does not load: {_first_line(error)}"
        return Finding(distribution, text, "warning", cure)
    return Finding(distribution, f"{name}, kernels load")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _binary(path: Path) -> bool:
    return path.suffix in {".so", ".pyd", ".dll", ".dylib"}


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error  # torch wraps the loader's message in its own.
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"[:300]
