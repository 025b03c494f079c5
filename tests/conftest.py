"""Shared fixtures: golden vectors, and a cache that is never the user's."""

import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated data goes to one folder per test session, never to the user's cache."""
    cache = os.environ.get("BIMAMBA_TEST_CACHE") or tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("BIMAMBA_CACHE", str(cache))


@pytest.fixture
def golden() -> Path:
    """Folder of reference vectors."""
    return GOLDEN
