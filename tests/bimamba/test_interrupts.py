"""An interrupt that Python drops is raised again at the next batch."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bimamba.interrupts import Interrupts
from bimamba.main import main
from tests.demo import TINY


class PressesWhenFreed:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    found = Interrupts()
    with found.listening():
        yield found
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_finaliser_swallowed_is_raised_at_the_next_batch(interrupts: Interrupts) -> None:
    interrupts.on_train_batch_start()
    freed = PressesWhenFreed()
    del freed  # The exception is "ignored in" __del__.
    with pytest.raises(KeyboardInterrupt):
        interrupts.on_train_batch_start()


def test_an_ordinary_press_interrupts_at_once(interrupts: Interrupts) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_handler_of_somebody_else_stays() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts().listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_failed_gives_the_signal_back(tmp_path: Path) -> None:
    """Lightning puts back the handlers of its start even after an error."""
    before = signal.getsignal(signal.SIGINT)
    words = ["--model.init_args.optimizer.lr", "1e30", "--trainer.max_epochs", "3"]
    words += ["--model.init_args.schedule.warmup_epochs", "0", "--output", str(tmp_path)]
    assert main(["fit", *TINY, *words]) == 2
    assert signal.getsignal(signal.SIGINT) is before
