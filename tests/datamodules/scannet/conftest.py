"""Miniatures in the true layouts: a few rendered frames, two rooms."""

import shutil
from pathlib import Path

import pytest

from datamodules.scannet.embedded_scans import write_scans
from datamodules.scannet.embedded_sv import Size, write_sv


@pytest.fixture(scope="session")
def rendered_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sv")
    write_sv(folder, Size(train=3, val=2, points=1500), seed=1)
    return folder


@pytest.fixture(scope="session")
def rendered_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_scans(folder, train=1, val=1, seed=1, views=2)
    return folder


@pytest.fixture
def frames(rendered_frames: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(rendered_frames, tmp_path / "scannet200-sv"))


@pytest.fixture
def scans(rendered_scans: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(rendered_scans, tmp_path / "scannet"))
