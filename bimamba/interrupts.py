"""Ctrl-C that cannot get lost.

Python drops an exception that is raised while it runs a finaliser, a KeyboardInterrupt too, and
training goes on as if nothing had been pressed. Here the press is remembered, and raised again at
the next batch if the first raise came to nothing.
"""

import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Interrupts(Callback):
    """Raises a KeyboardInterrupt that was asked for and did not arrive."""

    def __init__(self) -> None:
        super().__init__()
        self._pressed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listens, unless somebody has a handler of their own (or this is no main thread)."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            try:
                signal.signal(signal.SIGINT, self._press)
            except ValueError:  # Only the main thread may.
                return

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Gives the signal back: Lightning tears down only what ended well."""
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signal back."""
        self._release()

    def _release(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._press:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def on_validation_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def on_test_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def on_predict_batch_start(self, *_: Any) -> None:  # noqa: D102
        self._raise_again()

    def _press(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt

    def _raise_again(self) -> None:
        if self._pressed:
            raise KeyboardInterrupt
