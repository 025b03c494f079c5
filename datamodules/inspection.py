"""What a data set says about itself, to `bimamba data` and `bimamba check`.

A datamodule offers `describe` and `validate`; both look at the files alone, before any training.
One that can write its data in another format offers `convert`, one that can mend it `repair`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from blocks.errors import SuiteError

_PARTS = ("expected", "found", "where", "cure")


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


@dataclass(frozen=True)
class Progress:
    """How far a long job has come.

    Args:
        done: Items behind it.
        total: Items in all.
        what: What is counted: `images`, `clips`.
    """

    done: int
    total: int
    what: str


@runtime_checkable
class Inspectable(Protocol):
    """A datamodule that can be looked at without training."""

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts in the order in which they should be read: name to value."""
        ...

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Reads the files and yields what is wrong, as it is found; no remark when all is well.

        Between the remarks it may yield `Progress`.

        Args:
            sample: How many items to read at most, drawn evenly; `None` reads every one. What the
                lists of files alone tell is found in any case.
        """
        ...


@runtime_checkable
class Convertible(Protocol):
    """A datamodule that can write its data in another format, often one that reads faster."""

    def convert(self, to: Path) -> Iterator[Path | Progress]:
        """Writes the data to `to` and yields each finished file, and its progress if it likes.

        Args:
            to: Folder to write to. What an interrupted call left there is gone on with.
        """
        ...


@runtime_checkable
class Repairable(Protocol):
    """A datamodule that can write a mended copy of its data."""

    def repair(self, to: Path) -> Iterator[Path | Progress]:
        """Writes what is sound, or can be made so, to `to` and yields each finished file.

        Args:
            to: Folder to write to; the original stays as it is.
        """
        ...


def remark_of(error: SuiteError, level: Literal["error", "warning", "note"] = "error") -> Remark:
    """The remark that says what an error says.

    Args:
        error: Its message has the four parts, each perhaps of several lines.
        level: How bad it is.
    """
    pieces = re.split(rf"^({'|'.join(_PARTS)}): ", str(error), flags=re.MULTILINE)
    parts = dict(zip(pieces[1::2], (text.rstrip("\n") for text in pieces[2::2]), strict=True))
    return Remark(level, **{name: parts.get(name, "") for name in _PARTS})
