"""What a module may know about its data; read once from `datamodule.info`."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class DataInfo:
    """Facts every wing states about its data. The wings add their own.

    Args:
        batch_size: Training samples per process and step.
        protocol: What is evaluated and how, in one line for the result table.
        root: Folder that was read.
        synthetic: Whether the data is the embedded set.
        hash: Digest of the file list that was read for this stage.
    """

    batch_size: int
    protocol: str
    root: str
    synthetic: bool
    hash: str


def digest(lines: Iterable[str]) -> str:
    """Twelve hexadecimal digits that identify a list of lines."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()[:12]
