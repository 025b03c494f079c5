"""Files that are never half written, and foreign checkpoints that cannot run code.

A pickle is a program. The readers here give it a vocabulary of tensors and plain containers; every
other name in the file becomes an inert bag of attributes, so nothing is imported and nothing runs.
"""

import contextlib
import io
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy

from blocks.errors import SuiteError

# What a tensor pickle needs. Storage classes are resolved by torch itself, from the same module.
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    *(("builtins", name) for name in ("dict", "list", "tuple", "set", "frozenset", "slice")),
    *(("builtins", name) for name in ("bool", "int", "float", "complex", "str", "bytes")),
    ("builtins", "bytearray"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("torch.storage", "UntypedStorage"),
    ("torch.storage", "TypedStorage"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    # Arrays in pickles of protocol 5.
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}

# Safety does not rest on this list (an unknown name is inert anyway): a training checkpoint has no
# honest reason to name these, so the file is refused and its reader told why.
_HOSTILE = {
    "os", "posix", "nt", "sys", "io", "subprocess", "importlib", "runpy", "shutil", "socket", "pty",
    "ctypes", "code", "pickle", "webbrowser", "multiprocessing", "asyncio", "threading", "signal",
    "urllib", "http", "operator", "functools", "timeit", "pdb", "cProfile", "platform",
}  # fmt: skip

_NPY_HEADER = 1 << 16

# torch.save writes pickle protocol 2, which spells some modules as Python 2 did.
_PYTHON_2 = {"__builtin__": "builtins", "commands": "subprocess"}


class Inert(dict[Any, Any]):
    """Stands where a foreign object was: keeps its state as attributes or items, does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Keeps the pickled attributes."""
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update({str(key): value for key, value in part.items()})


def load_foreign(path: str | Path) -> Any:
    """Reads a `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin` file without running its code.

    Args:
        path: The file.

    Returns:
        The stored object, on the CPU. Foreign classes (argparse.Namespace, yacs CfgNode, ...)
        arrive as `Inert`.

    Raises:
        SuiteError: No such file, not a checkpoint, damaged, or a pickle that asks for code.
    """
    path = Path(path)
    if not path.is_file():
        raise SuiteError(
            expected="a checkpoint file",
            found="a folder" if path.is_dir() else "no such file",
            where=str(path),
            cure="check the path; folders of shards must be merged to one file first",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        _refuse_torchscript(path)
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=_restricted(path)
        )
    except SuiteError:
        raise
    except Exception as error:
        raise SuiteError(
            expected="a checkpoint written by torch.save or safetensors",
            found=f"{_kind(path)} ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
            if str(error)
            else _kind(path),
            where=str(path),
            cure="copy or download the file again and compare its size with the source",
        ) from error


def load_pickle(path: str | Path) -> Any:
    """Reads a plain pickle of containers and numpy arrays without running its code.

    Args:
        path: A file written by `pickle.dump`, of Python 3 or 2 (its strings are taken as Latin-1).

    Raises:
        SuiteError: No such file, not a pickle, damaged, or a pickle that asks for code.
    """
    path = Path(path)
    if not path.is_file():
        raise SuiteError(
            expected="a pickle file", found="no such file", where=str(path), cure="check the path"
        )
    try:
        with path.open("rb") as file:
            return _restricted(path).load(file, encoding="latin1")
    except SuiteError:
        raise
    except Exception as error:  # A damaged pickle raises almost anything.
        raise SuiteError(
            expected="a pickle of containers and numpy arrays",
            found=f"{_kind(path)} ({type(error).__name__}: {str(error)[:120]})",
            where=str(path),
            cure="copy or download the file again and compare its size with the source",
        ) from error


def load_npz(path: str | Path) -> dict[str, Any]:
    """Reads an `.npz` archive, object arrays included, without running their code.

    Args:
        path: A file written by `numpy.savez`, compressed or not.

    Returns:
        Arrays by name. An object array that holds one thing, as `savez` makes of a dict, is that
        thing itself.

    Raises:
        SuiteError: No such file, not an archive of arrays, damaged, or one that asks for code.
    """
    path = Path(path)
    if not path.is_file():
        raise SuiteError(
            expected="an .npz file", found="no such file", where=str(path), cure="check the path"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _read_npy(archive.open(name), path)
                for name in archive.namelist()
            }
    except SuiteError:
        raise
    except Exception as error:
        raise SuiteError(
            expected="an .npz archive of numpy arrays",
            found=f"{_kind(path)} ({type(error).__name__}: {str(error)[:120]})",
            where=str(path),
            cure="copy or download the file again and compare its size with the source",
        ) from error


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; renames it to `path` when the block ends well.

    Args:
        path: Final name. Parent folders are made.

    Yields:
        The temporary path to write to, with the same suffix. It is removed if the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text to `path` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Writes `content` as indented JSON to `path` in one step."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def cache_dir() -> Path:
    """Folder of generated data: `BIMAMBA_CACHE`, by default `~/.cache/bimamba`."""
    return Path(os.environ.get("BIMAMBA_CACHE", "~/.cache/bimamba")).expanduser()


def _restricted(path: Path) -> ModuleType:
    """A stand-in for the pickle module whose unpicklers know tensors and nothing else."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            module = _PYTHON_2.get(module, module)
            torch_class = module == "torch" and name.endswith(("Storage", "Tensor"))
            if (module, name) in _ALLOWED or (torch_class and "." not in name):
                return super().find_class(module, name)
            if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            if (module, name) == ("_codecs", "encode"):
                return _latin1
            hostile_builtin = module == "builtins" and name != "object"
            if hostile_builtin or module.split(".")[0] in _HOSTILE:
                raise SuiteError(
                    expected="a checkpoint of tensors and plain containers",
                    found=f"a pickle that asks to call {module}.{name}; it was not run",
                    where=str(path),
                    cure="do not open this file elsewhere; ask its author for a .safetensors file",
                )
            return type(name, (Inert,), {"__module__": module})

    def load(file: IO[bytes], **options: Any) -> Any:
        return Unpickler(file, **options).load()

    module = ModuleType("restricted_pickle")
    attributes: dict[str, type | Callable[..., Any]] = {
        "Unpickler": Unpickler,
        "load": load,
        "UnpicklingError": pickle.UnpicklingError,
    }
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def _read_npy(file: IO[bytes], path: Path) -> Any:
    """One array of an archive; its header tells whether a pickle follows."""
    with file:
        head = io.BytesIO(file.read(_NPY_HEADER))
        version = npy.read_magic(head)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        _, _, dtype = read(head)
        file.seek(head.tell() if dtype.hasobject else 0)
        if not dtype.hasobject:
            return npy.read_array(file, allow_pickle=False)
        content = _restricted(path).load(file, encoding="latin1")
    return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content


def _refuse_torchscript(path: Path) -> None:
    """Such an archive is a program too, and torch.load would hand it to torch.jit.load."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        raise SuiteError(
            expected="a checkpoint of tensors and plain containers",
            found="a TorchScript archive, which holds code; it was not loaded",
            where=str(path),
            cure="ask its author for the state dict, as .pth or .safetensors",
        )


def _latin1(text: str, _: str) -> bytes:
    """Bytes, and with them numpy's numbers, as pickle protocol 2 (torch.save's) spells them."""
    return text.encode("latin1")


def _kind(path: Path) -> str:
    size = path.stat().st_size
    if size == 0:
        return "an empty file"
    head = path.open("rb").read(64)
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"an archive cut short at {size} bytes"
    if head.lstrip().startswith((b"<!DOCTYPE", b"<html", b"version https://git-lfs")):
        return "a web page or Git LFS pointer saved under a checkpoint's name"
    return f"a file of {size} bytes that could not be read"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
