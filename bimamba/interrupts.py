"""Ctrl-C that cannot get lost.

Python drops an exception that is raised while it runs a finaliser, a KeyboardInterrupt too, and
training goes on as if nothing had been pressed. Here the press is remembered, and raised again at
the next batch if the first raise came to nothing.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback

# Set for a run whose standard input ends with the command that started it.
LIFELINE = "BIMAMBA_LIFELINE"


class Interrupts(Callback):
    """Raises a KeyboardInterrupt that was asked for and did not arrive."""

    def __init__(self) -> None:
        super().__init__()
        self._pressed = False

    def watch_parent(self) -> None:
        """Stops the run, with a checkpoint, once the command that started it is gone.

        An ablation or a search holds the other end of our standard input for as long as it lives.
        It has had no time to stop its runs where it was killed, and whoever goes on with it must
        not meet one that is still writing.
        """
        if not os.environ.pop(LIFELINE, None):
            return
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            # A shell's background job ignores it, and so would all that it starts: but here it is
            # the command above that asks.
            signal.signal(signal.SIGINT, signal.default_int_handler)

        def wait() -> None:
            os.read(sys.stdin.fileno(), 1)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=wait, daemon=True, name="lifeline").start()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens, unless somebody has a handler of their own (or this is no main thread).

        This goes around the whole run, not into `setup` and `teardown`: Lightning puts back every
        handler it found at its start, after all hooks have been called.
        """
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler or not self._listen():
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def on_train_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def on_validation_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def on_test_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def on_predict_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def _listen(self) -> bool:
        try:
            signal.signal(signal.SIGINT, self._press)
        except ValueError:  # Only the main thread may.
            return False
        return True

    def _press(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt

    def _raise_again(self) -> None:
        if self._pressed:
            raise KeyboardInterrupt
