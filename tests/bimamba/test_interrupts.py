"""An interrupt that Python drops is raised again at the next batch."""

import signal
from collections.abc import Iterator

import pytest
from lightning.pytorch import LightningModule, Trainer

from bimamba.interrupts import Interrupts


class PressesWhenFreed:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    """Lightning ignores the signal after an interrupt: an earlier run in this process may have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    found = Interrupts()
    trainer, module = Trainer(logger=False, enable_checkpointing=False), LightningModule()
    found.setup(trainer, module, "fit")
    yield found
    found.teardown(trainer, module, "fit")
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


def test_a_run_that_failed_gives_the_signal_back() -> None:
    found, trainer = Interrupts(), Trainer(logger=False, enable_checkpointing=False)
    found.setup(trainer, LightningModule(), "fit")
    found.on_exception(trainer, LightningModule(), RuntimeError())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays(interrupts: Interrupts) -> None:
    interrupts.teardown(Trainer(logger=False, enable_checkpointing=False), LightningModule(), "fit")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.setup(Trainer(logger=False), LightningModule(), "fit")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
