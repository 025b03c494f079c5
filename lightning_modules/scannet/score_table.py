"""Average precision per class as a table beside a run's other results."""

import csv
import math
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from blocks.files import atomic_path
from lightning_modules.scannet.instance_scores import InstanceScores
from lightning_modules.workload import Workload

_COLUMNS = ("ap", "ap50", "ap25")


class ClassScoreTable(Callback):
    """Writes `per_class.csv` into the run directory: classes, then head, common, tail and all.

    Below them stand the ceiling (the truth rounded to superpoints) and the floor (each superpoint
    an instance) of the same split. Values are percent; a class without instances has none.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table of the validated split; of the last epoch in the end."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table of the tested split."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        assert isinstance(module, Workload)
        found = getattr(module, "scores")[stage]  # noqa: B009
        assert isinstance(found, InstanceScores)
        if not trainer.is_global_zero or not found.latest:
            return
        rows: list[list[str | float]] = []
        if not found.agnostic and (table := found.classes) is not None:
            stuff, info = getattr(module, "stuff"), module.info  # noqa: B009
            kinds = list(zip(info["class_names"], info["class_groups"], strict=True))
            things = [kind for place, kind in enumerate(kinds) if place not in stuff]
            columns = 100 * np.stack((table.ap, table.ap50, table.ap25), 1)
            rows += [[*kind, *row] for kind, row in zip(things, columns.tolist(), strict=True)]
        for group in ("head", "common", "tail"):
            if group in found.latest:
                values = [found.latest[group + at] for at in ("", "50", "25")]
                rows.append([f"all of {group}", group, *values])
        for name, prefix in (
            ("all", ""),
            ("ceiling: truth by superpoint", "ceiling_"),
            ("floor: a mask per superpoint", "floor_"),
        ):
            rows.append([name, "", *(found.latest[prefix + c] for c in _COLUMNS)])
        path = Path(trainer.default_root_dir) / "per_class.csv"
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["class", "group", *_COLUMNS])
            writer.writerows([_text(cell) for cell in row] for row in rows)


def _text(cell: str | float) -> str:
    if isinstance(cell, str):
        return cell
    return "" if math.isnan(cell) else f"{cell:.3f}"
