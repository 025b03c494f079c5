"""Reads the vision golden files: configuration and tensors."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        return config, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def relative_error(found: Tensor | None, expected: Tensor) -> float:
    assert found is not None and found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
