import subprocess
import sys

import pytest

import blocks


def test_every_public_name_resolves() -> None:
    for name in blocks.__all__:
        assert getattr(blocks, name).__name__ in (name, name.removesuffix("_fn"))
    with pytest.raises(AttributeError, match="'Bimamba'"):
        blocks.Bimamba  # noqa: B018


def test_errors_are_importable_without_torch() -> None:
    code = "import blocks.errors, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
