"""Loop counters that Lightning can go on from, whatever moment a checkpoint was taken at.

Lightning's counters are right after a batch and after an epoch. Taken at other moments they lead a
resumed run astray (Lightning 2.6): at the start of an epoch it trains no batch at all; during a
validation it evaluates only the batches that were missing, and reports them as the whole; between
the last batch and its validation it drops that validation. `settle` mends the stored counters.
"""

from typing import Any

from lightning.pytorch import Trainer

Counters = dict[str, dict[str, int]]


def settle(loops: dict[str, Any], trainer: Trainer) -> None:
    """Changes the loop state of a checkpoint being written.

    Args:
        loops: The checkpoint's entry of that name.
        trainer: Its trainer, in the moment of saving.
    """
    fit: dict[str, Any] = loops["fit_loop"]
    epochs: Counters = fit["epoch_progress"]
    for counters in (epochs["total"], epochs["current"]):
        # Between on_train_epoch_start and the first batch: the epoch has not begun.
        counters["ready"] = counters["started"]

    batches: Counters = fit["epoch_loop.batch_progress"]
    validation: Counters = fit["epoch_loop.val_loop.batch_progress"]
    all_trained = batches["current"]["processed"] >= trainer.num_training_batches
    if trainer.validating:
        due = validation["current"]["completed"] < sum(trainer.num_val_batches)
    else:
        # In on_train_batch_end of the epoch's last batch: processed, not yet completed.
        last_hook = batches["current"]["completed"] < batches["current"]["processed"]
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        due = all_trained and last_hook and epoch_loop._should_check_val_epoch()
    if due and all_trained:
        for counters in (batches["total"], batches["current"]):
            counters["completed"] = counters["processed"]
    if due:
        # One batch begun, none done: Lightning goes back and validates from the first batch.
        for counters in (validation["total"], validation["current"]):
            counters.update(ready=1, started=1, processed=0, completed=0)
