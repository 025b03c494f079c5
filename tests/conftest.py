"""Shared fixtures: golden vectors, and an environment that no test leaves changed."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Generated data goes to one folder per test session, never to the user's cache."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    os.environ["BIMAMBA_CACHE"] = str(cache)
    _share_kernels(cache)
    torch.set_num_threads(1)  # Tiny networks lose more time to threads than they gain.
    sys.argv = ["bimamba"]  # LightningCLI looks at it even when it is given its words.


def _share_kernels(cache: Path) -> None:
    """Compiled kernels are kept per checkout: their folders are named by the code they come from.

    Where there can be no link, every session compiles its own.
    """
    kernels = ROOT / ".pytest_cache" / "kernels"
    with contextlib.suppress(OSError):
        kernels.mkdir(parents=True, exist_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(kernels, os.W_OK):
            (cache / "kernels").symlink_to(kernels, target_is_directory=True)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Seeds and run directories travel in the environment: what a test sets ends with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def golden() -> Path:
    """Folder of reference vectors."""
    return GOLDEN
