"""Compiling kernels with numba, once per machine: the code is kept in the suite's cache."""

import functools
import hashlib
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from blocks.files import cache_dir

_lock = threading.RLock()


@functools.cache
def compiler_state() -> tuple[bool, str]:
    """Whether kernels can be compiled on this machine, and by what (or why not)."""
    try:
        import numba
        import numpy as np

        from blocks.cpu.mathematics import exp2

        # An incomplete llvmlite imports well and fails at the first function.
        powers = compile_kernel(lambda x: exp2(x[0]))(np.ones(1, np.float32))
        if powers != 2:
            return False, f"numba {numba.__version__} computes 2^1 = {powers}"
    except Exception as error:
        return False, f"numba does not work: {type(error).__name__}: {error}"
    return True, f"compiled by numba {numba.__version__}"


def available(device: torch.device) -> tuple[bool, str]:
    """Whether compiled kernels serve a device, and why."""
    if device.type != "cpu":
        return False, f"the kernels are for the CPU, not for {device.type}"
    usable, why = compiler_state()
    return usable, f"{why}, {torch.get_num_threads()} threads" if usable else why


def compile_kernel(function: Callable[..., Any], source: str | None = None) -> Any:
    """Compiles a function of arrays and numbers on its first call.

    Args:
        function: Python code numba understands. It runs without the interpreter's lock.
        source: File the function is written in; its machine code is then kept for the next
            process, until this file or the elementary functions change.
    """
    import numba

    from blocks.cpu.mathematics import FASTMATH

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    folder = None if source is None else _cache_folder(source)
    if folder is None:
        return numba.njit(**options)(function)
    with _lock, _numba_caches_in(folder):
        return numba.njit(cache=True, **options)(function)


@functools.cache
def _cache_folder(source: str) -> Path | None:
    """A folder of its own for each version of the code; None, said once, where none can be."""
    files = [Path(source), *sorted(Path(__file__).parent.glob("*.py"))]
    version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = cache_dir() / "kernels" / version
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        warnings.warn(
            f"CPU kernels are compiled anew in every process: {folder} cannot be written "
            f"({error.strerror}). Point BIMAMBA_CACHE to a folder that can.",
            stacklevel=2,
        )
        return None
    return folder


@contextmanager
def _numba_caches_in(folder: Path) -> Iterator[None]:
    """Numba asks for its cache folder when a function is declared, and only globally."""
    from numba import config

    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
