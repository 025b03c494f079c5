"""Shared fixtures: golden vectors, and an environment that no test leaves changed."""

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
    os.environ["BIMAMBA_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    torch.set_num_threads(1)  # Tiny networks lose more time to threads than they gain.
    sys.argv = ["bimamba"]  # LightningCLI looks at it even when it is given its words.


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
