"""Compiling kernels with numba, once per machine: the code is kept in the suite's cache."""

import contextlib
import functools
import hashlib
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

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
            process, until this file, one beside it or the elementary functions change.
    """
    import numba

    from blocks.cpu.mathematics import FASTMATH

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    folder = None if source is None else _cache_folder(source)
    if folder is None:
        return numba.njit(**options)(function)
    with _lock, _numba_caches_in(folder):
        kernel = numba.njit(cache=True, **options)(function)
    kernel._cache = _Cache(kernel._cache)
    return kernel


@functools.cache
def _cache_folder(source: str) -> Path | None:
    """A folder of its own for each version of the code; None, said once, where none can be."""
    folders = Path(source).parent, Path(__file__).parent
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
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


class _Cache:
    """Numba's cache of one function, which survives damaged files, full disks and other processes.

    Numba names a function's files by counting those in its index. Two processes that compile two
    variants at once would both write the first one, and a third would run the wrong code; here
    every process has names of its own.

    Args:
        cache: What `numba.njit(cache=True)` made.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        files = cache._cache_file
        own = f".{uuid4().hex[:16]}.{{number"
        files._data_name_pattern = files._data_name_pattern.replace(".{number", own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The compiled function, or None for what is not there or cannot be read."""
        try:
            return self._cache.load_overload(signature, context)
        except Exception:
            # Forgotten, or the index could not be written anew either.
            with contextlib.suppress(OSError):
                self._cache.flush()
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keeps the compiled function if there is room."""
        with contextlib.suppress(OSError):
            self._cache.save_overload(signature, compiled)


@contextlib.contextmanager
def _numba_caches_in(folder: Path) -> Iterator[None]:
    """Numba asks for its cache folder when a function is declared, and only globally."""
    from numba import config

    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
