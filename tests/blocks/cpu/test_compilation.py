"""Compiled code is kept for the next process; where that or compiling fails, results stay right."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba.core.caching import IndexDataCacheFile

from blocks.cpu import compilation
from blocks.cpu.compilation import available, compile_kernel, compiler_state
from tests.conftest import ROOT

# Compiled in a second: one kernel whose code depends on a constant around it, as the scan's does.
KERNEL = """
import sys, warnings
import numpy as np
from blocks.cpu.compilation import compile_kernel

def kernel(constant):
    def add(x):
        for i in range(x.size):
            x[i] += constant
    return compile_kernel(add, __file__)

def run(constant):
    add, x = kernel(constant), np.arange(4.0)
    add(x)
    assert (x == np.arange(4.0) + constant).all(), x
    return sum(add.stats.cache_hits.values())

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = [run(int(word)) for word in sys.argv[1:]]
print(*found)
print(*(w.message for w in caught), sep="\\n")
"""

# The scan and its gradient by the backend that serves, against the definition.
SCAN = """
import torch
from blocks import path_scan, scan_backends
for line in scan_backends("cpu"):
    print(*line, sep="|")
torch.manual_seed(0)
u, delta = torch.randn(2, 2, 3, 9), torch.randn(2, 2, 3, 9)
A, B = -torch.rand(2, 3, 1), torch.randn(2, 2, 1, 9)
results = []
for backend in (None, "reference"):
    inputs = [x.clone().requires_grad_() for x in (u, delta, A, B)]
    out, _ = path_scan(*inputs, B, paths="><", delta_softplus=True, backend=backend)
    results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
for ours, expected in zip(*results):
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
print("good")
"""


def python(*words: str, cache: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A process of its own, with a cache of its own, that finds packages of `site` first."""
    path = os.pathsep.join([*([str(site)] if site else []), str(ROOT)])
    environment = {
        **os.environ, "PYTHONPATH": path, "BIMAMBA_CACHE": str(cache), "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1", "COLUMNS": "200",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
    )


@pytest.fixture
def run_kernels(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs kernels with some constants in a fresh process; cache hits of each, and warnings."""
    script = tmp_path / "script.py"
    script.write_text(KERNEL)

    def run(*constants: int, cache: Path = tmp_path / "cache") -> list[str]:
        done = python(str(script), *map(str, constants), cache=cache)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()

    return run


@pytest.fixture
def broken_numba(tmp_path: Path) -> Callable[[str], Path]:
    """A folder whose `numba` raises on import."""

    def write(statement: str) -> Path:
        (tmp_path / "site" / "numba").mkdir(parents=True)
        (tmp_path / "site" / "numba" / "__init__.py").write_text(statement)
        return tmp_path / "site"

    return write


def files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.rglob(pattern))
    assert found, f"no {pattern} under {folder}"
    return found


@pytest.mark.slow
def test_a_second_process_finds_the_code_of_the_first(
    run_kernels: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert run_kernels(3) == ["0"]
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path / "cache", "*.nb[ci]")}
    assert run_kernels(3) == ["1"]
    assert before == {
        path: path.stat().st_mtime_ns for path in files(tmp_path / "cache", "*.nb[ci]")
    }
    # Another constant is other code, although name, place and types are the same.
    assert run_kernels(5, 3) == ["0 1"]


@pytest.mark.slow
def test_a_change_of_the_source_is_compiled_anew(
    run_kernels: Callable[..., list[str]], tmp_path: Path
) -> None:
    run_kernels(3)
    script = tmp_path / "script.py"
    stamp = script.stat()
    script.write_text(script.read_text().replace("+= constant", "+= 2 * constant - constant"))
    # Also by someone who turns the clock back, as pip and git do.
    os.utime(script, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert run_kernels(3) == ["0"]
    assert len(list((tmp_path / "cache" / "kernels").iterdir())) == 2


@pytest.mark.slow
def test_files_cut_short_do_not_stop_the_next_process(
    run_kernels: Callable[..., list[str]], tmp_path: Path
) -> None:
    run_kernels(3)
    for path in files(tmp_path / "cache", "*.nb[ci]"):
        path.write_bytes(path.read_bytes()[:-100])
    assert run_kernels(3) == ["0"]
    assert run_kernels(3) == ["1"]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_said_once_and_changes_no_result(
    run_kernels: Callable[..., list[str]], tmp_path: Path
) -> None:
    cache = tmp_path / "a_file"
    cache.write_text("no folder")
    found, *said = run_kernels(3, 5, 3, cache=cache)
    assert found == "0 0 0"
    assert len(said) == 1
    assert re.search(f"{cache}.* cannot be written .*BIMAMBA_CACHE", said[0]), said


@pytest.mark.slow
def test_the_scan_runs_where_the_cache_cannot_be_written(tmp_path: Path) -> None:
    cache = tmp_path / "a_file"
    cache.write_text("no folder")
    done = python("-c", SCAN, cache=cache)
    assert done.returncode == 0 and done.stdout.endswith("good\n"), done.stderr
    assert done.stderr.count("cannot be written") == 1
    assert "numba|True|" in done.stdout


def make_adder(constant: int, source: Path) -> Any:
    def add(x):  # noqa: ANN001, ANN202
        for i in range(x.size):
            x[i] += constant

    return compile_kernel(add, str(source))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source file whose kernels are kept below tmp_path."""
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source.py"
    source.write_text("x")
    return source


def hits(constant: int, source: Path) -> int:
    """Adds with a newly declared kernel; how often it found its code on the disk."""
    add, x = make_adder(constant, source), np.zeros(3)
    add(x)
    assert (x == constant).all()
    return sum(add.stats.cache_hits.values())


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc", "*.nb[ci]"])
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.99])
def test_files_cut_short_are_compiled_anew_and_replaced(
    own_cache: Path, pattern: str, share: float
) -> None:
    assert [hits(3, own_cache), hits(3, own_cache)] == [0, 1]
    for path in files(own_cache.parent / "cache", pattern):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    assert [hits(3, own_cache), hits(3, own_cache)] == [0, 1]


def test_code_whose_file_was_removed_is_compiled_anew(own_cache: Path) -> None:
    assert [hits(3, own_cache), hits(3, own_cache)] == [0, 1]
    for path in files(own_cache.parent / "cache", "*.nbc"):
        path.unlink()
    assert [hits(3, own_cache), hits(3, own_cache)] == [0, 1]


def test_a_disk_that_fills_up_after_the_start_changes_no_result(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_open_for_write", full)
    assert hits(7, own_cache) == 0


def test_two_processes_that_compile_at_once_do_not_take_each_others_code(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both find the cache empty; the one that writes its index first writes its code last.
    late: list[tuple[Any, ...]] = []
    write_code = IndexDataCacheFile._save_data
    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_load_index", lambda self: {})
        patch.setattr(IndexDataCacheFile, "_save_data", lambda *words: late.append(words))
        for constant in (1, 2):
            hits(constant, own_cache)
    assert len(late) == 2
    for words in reversed(late):
        write_code(*words)
    # Asserts the sums.
    assert hits(1, own_cache) + hits(2, own_cache) <= 2


def test_numbas_own_cache_setting_is_left_as_it_was(own_cache: Path) -> None:
    from numba import config

    before = config.CACHE_DIR
    make_adder(1, own_cache)
    assert before == config.CACHE_DIR


def test_without_a_source_nothing_is_kept(own_cache: Path) -> None:
    x = compile_kernel(lambda x: x[0] + 1)(np.ones(1))
    assert x == 2
    assert not (own_cache.parent / "cache").exists()


def test_the_state_names_the_compiler_and_the_threads() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiler_state()[0]
        usable, why = available(torch.device("cpu"))
    assert usable and re.fullmatch(r"compiled by numba [\d.]+, 1 threads?", why), why
    assert available(torch.device("cuda")) == (False, "the kernels are for the CPU, not for cuda")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("libllvm.so: cannot open shared object"), "OSError: libllvm.so: cannot open"),
        (RuntimeError("LLVM IR parsing error"), "RuntimeError: LLVM IR parsing"),
    ],
)
def test_a_compiler_that_fails_at_the_first_function_is_not_usable(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(compilation, "compile_kernel", fail)
    usable, why = compiler_state.__wrapped__()
    assert not usable and said in why


def test_a_compiler_that_computes_wrongly_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "compile_kernel", lambda function: lambda x: 3.0)
    usable, why = compiler_state.__wrapped__()
    assert not usable and why.endswith("computes 2^1 = 3.0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("raise ImportError('No module named numba')", "ImportError: No module named numba"),
        ("raise OSError('libllvmlite.so: broken')", "OSError: libllvmlite.so: broken"),
        ("x = 1", "ImportError: cannot import name"),
    ],
    ids=["missing", "broken", "hollow"],
)
def test_without_a_working_numba_the_reference_serves_and_says_why(
    statement: str, why: str, broken_numba: Callable[[str], Path], tmp_path: Path
) -> None:
    site = broken_numba(statement)
    done = python("-c", SCAN, cache=tmp_path / "cache", site=site)
    assert done.returncode == 0, done.stderr
    numba, *_, reference, good = done.stdout.splitlines()
    assert numba.startswith("numba|False|numba does not work: ") and why in numba
    assert reference == "reference|True|plain torch on cpu"
    assert good == "good"


@pytest.mark.slow
def test_the_doctor_names_the_reference_and_what_is_wrong_with_numba(
    broken_numba: Callable[[str], Path], tmp_path: Path
) -> None:
    site = broken_numba("raise OSError('libllvmlite.so: broken')")
    done = python("-m", "bimamba", "doctor", cache=tmp_path / "cache", site=site)
    assert "reference serves cpu" in done.stdout, done.stdout + done.stderr
    assert "numba: no, numba does not work: OSError: libllvmlite.so: broken" in done.stdout
    assert "reference: plain torch on cpu" in done.stdout


@pytest.mark.slow
def test_the_doctor_names_numba_where_it_works(tmp_path: Path) -> None:
    done = python("-m", "bimamba", "doctor", cache=tmp_path / "cache")
    assert "numba serves cpu" in done.stdout, done.stdout + done.stderr
    assert re.search(r"numba: compiled by numba [\d.]+, 1 thread", done.stdout)
    assert "reference: plain torch on cpu" in done.stdout
