"""What the steps of a check hand on to each other, and what they overhear."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimamba.cli import SuiteCLI
    from bimamba.preflight.rehearsal import FirstBatch

# True of every check, and of no concern to the run that it prepares.
_IRRELEVANT = ("LightningCLI's args parameter",)


@dataclass
class Case:
    """A configuration under examination.

    Args:
        words: Words of `fit`.
        scratch: Folder that is deleted at the end.
    """

    words: list[str]
    scratch: Path
    noted: int = 0
    log: list[str] = field(default_factory=list)
    _warnings: dict[str, None] = field(default_factory=dict)
    _cli: "SuiteCLI | None" = None
    _first_batch: "FirstBatch | None" = None

    @property
    def cli(self) -> "SuiteCLI":
        """The command with model, data and trainer, built but not run."""
        assert self._cli is not None, "the step `configuration` comes first"
        return self._cli

    @cli.setter
    def cli(self, cli: "SuiteCLI") -> None:
        self._cli = cli

    @property
    def first_batch(self) -> "FirstBatch":
        """What happened to the first batch."""
        assert self._first_batch is not None, "the step `training batch` comes first"
        return self._first_batch

    @first_batch.setter
    def first_batch(self, first_batch: "FirstBatch") -> None:
        self._first_batch = first_batch

    def warn(self, text: str) -> None:
        """Notes something to look at that keeps nothing from working."""
        if not text.startswith(_IRRELEVANT):
            self._warnings.setdefault(text)

    def take_warnings(self) -> list[str]:
        """What was noted since the last call."""
        texts, self._warnings = list(self._warnings), {}
        self.noted += len(texts)
        return texts


@contextmanager
def listen(case: Case) -> Iterator[None]:
    """Catches warnings and Lightning's log lines for the length of a step."""

    def keep(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # Deprecations are for programmers.
        if issubclass(category, UserWarning | RuntimeWarning):
            case.warn(str(message))

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    show = warnings.showwarning
    warnings.showwarning = keep
    for logger in loggers:
        logger.handlers, logger.propagate = [_Lines(case.log)], False
    try:
        yield
    finally:
        warnings.showwarning = show
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
