"""`metrics.csv` of a run, continued where a resumed run goes on."""

import csv
from pathlib import Path

from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class MetricsLog(CSVLogger):
    """CSV logger that keeps the rows before the restored step and drops those after it.

    Args:
        directory: Run directory.
        resumed_step: Optimiser steps of the checkpoint that the run goes on from; 0 = fresh.
    """

    def __init__(self, directory: str | Path, resumed_step: int = 0) -> None:
        super().__init__(directory, name="", version="")
        self.resumed_step = resumed_step

    @property
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:
        """The writer behind the logger."""
        if self._experiment is None:
            path = Path(self.log_dir) / "metrics.csv"
            # The writer deletes the file it finds: the rows are put aside first, and found again
            # should this process die before they are back.
            aside = path.with_suffix(".previous.csv")
            if path.is_file():
                path.replace(aside)
            self._experiment = ExperimentWriter(log_dir=self.log_dir)
            if aside.is_file():
                with aside.open(newline="") as file:
                    rows = [row for row in csv.DictReader(file) if _step(row) < self.resumed_step]
                self._experiment.metrics = rows  # type: ignore[assignment]
                self._experiment.save()
                aside.unlink()
        return self._experiment


def _step(row: dict[str, str]) -> int:
    try:
        return int(row["step"])
    except (KeyError, ValueError, TypeError):  # A line that was cut short.
        return 2**63
