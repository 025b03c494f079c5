"""What a classifier does with each class, as one CSV file after `test` and `validate`."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from blocks.files import atomic_path
from lightning_modules.vision.metrics import ClassCounts
from lightning_modules.workload import Workload

COLUMNS = ("class", "count", "top1", "top5", "confused_with", "confused")


class PerClassTable(Callback):
    """Writes `per_class.csv` into the run directory, exact on any number of processes.

    Columns: class, number of images, Top-1 and Top-5 in percent (empty without images), the class
    it is most often taken for, and how many times. With EMA these are the average's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: ClassCounts | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting, but not in the validations of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._start(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting."""
        self._start(pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Counts a batch."""
        if self._counts is not None:
            self._counts.update(outputs["logits"], batch["label"])

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Counts a batch."""
        if self._counts is not None:
            self._counts.update(outputs["logits"], batch["label"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        self._write(trainer, pl_module)

    def _start(self, module: LightningModule) -> None:
        assert isinstance(module, Workload)
        self._counts = ClassCounts(len(module.info["class_names"])).to(module.device)

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Workload)
        if self._counts is None:
            return
        confusion, among_5 = self._counts.compute()  # On every process: it gathers.
        self._counts = None
        if not trainer.is_global_zero or not int(confusion.sum()):
            return
        names = [str(name) for name in module.info["class_names"]]
        with (
            atomic_path(Path(trainer.default_root_dir) / "per_class.csv") as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(class_rows(confusion.cpu(), among_5.cpu(), names))


def class_rows(confusion: Tensor, among_5: Tensor, names: list[str]) -> list[list[object]]:
    """The table's rows, in the order of the classes.

    Args:
        confusion: Counts (truth, first guess).
        among_5: By class, images with the truth among five guesses.
        names: Class names.
    """
    counts, right = confusion.sum(1), confusion.diagonal()
    wrong = confusion.clone().fill_diagonal_(0)
    rows: list[list[object]] = []
    for index, name in enumerate(names):
        count, most = int(counts[index]), int(wrong[index].max())
        shares = (right[index], among_5[index])
        rows.append(
            [
                name,
                count,
                *(f"{100 * int(share) / count:.2f}" if count else "" for share in shares),
                names[int(wrong[index].argmax())] if most else "",
                most,
            ]
        )
    return rows
