"""Miniatures in the published layouts, written once; tests that change them take a copy."""

from pathlib import Path

import pytest

from blocks.geometry.motion_skeleton import HUMANML3D, KIT
from datamodules.motion.miniatures import write_miniature


@pytest.fixture(scope="session")
def humanml3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion") / "HumanML3D"
    write_miniature(root, HUMANML3D)
    return root


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion") / "KIT-ML"
    write_miniature(root, KIT, clips=4)
    return root
