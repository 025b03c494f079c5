"""What a data set says about itself, to `bimamba data describe` and `bimamba data validate`.

A datamodule offers `describe` and `validate`; both look at the files alone, before any training.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True)
class Remark:
    """One thing that is wrong or odd in a data set.

    Args:
        level: `error` makes training wrong or impossible, `warning` makes it doubtful, `note` is
            worth knowing.
        expected: What should be there.
        found: What is there.
        where: File, folder or entry.
        cure: What to do about it.
    """

    level: Literal["error", "warning", "note"]
    expected: str
    found: str
    where: str
    cure: str


@runtime_checkable
class Inspectable(Protocol):
    """A datamodule that can be looked at without training."""

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts in the order in which they should be read: name to value."""
        ...

    def validate(self) -> Iterator[Remark]:
        """Reads every file and yields what is wrong, as it is found; nothing when all is well."""
        ...
