"""What an inspection found: one line each with a mark, and below it the cure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape

State = Literal["good", "warning", "broken", "skipped"]

_COLOURS = {"good": "green", "warning": "yellow", "broken": "red", "skipped": "dim"}
_MARKS = {"good": "✓", "warning": "!", "broken": "✗", "skipped": "–"}
_ASCII_MARKS = {"good": "ok", "warning": "! ", "broken": "x ", "skipped": "- "}


@dataclass(frozen=True)
class Finding:
    """One fact.

    Args:
        topic: What was looked at, in a word or two.
        text: What was found.
        state: Whether that is good, dubious or keeps the suite from working.
        cure: What to do about it.
    """

    topic: str
    text: str
    state: State = "good"
    cure: str = ""


def show(finding: Finding, console: Console) -> None:
    """Prints a finding; lines after the first, and the cure, are indented under it.

    Args:
        finding: What to print.
        console: Where to.
    """
    marks = _MARKS if console.encoding.startswith("utf") else _ASCII_MARKS
    colour = _COLOURS[finding.state]
    first, *more = finding.text.splitlines() or [""]
    line = f"[{colour}]{marks[finding.state]}[/] {finding.topic:<16} {escape(first)}".rstrip()
    console.print(line, soft_wrap=True)
    if finding.cure:
        more.append(f"cure: {finding.cure}")
    for text in more:
        console.print(f"    {escape(text)}", soft_wrap=True)


def count(findings: Iterable[Finding], state: State) -> int:
    """Number of findings in a state."""
    return sum(finding.state == state for finding in findings)


def size(number: float) -> str:
    """Bytes in words: `512 B`, `3.4 MB`."""
    power = min(int(math.log(number, 1000)) if number >= 1 else 0, 4)
    unit = ("B", "kB", "MB", "GB", "TB")[power]
    return f"{number / 1000**power:.{1 if power else 0}f} {unit}"
