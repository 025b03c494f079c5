"""Scores per action and per joint as tables beside a run's other results."""

import csv
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from blocks.files import atomic_path
from lightning_modules.pose.evaluation import PoseScores
from lightning_modules.workload import Workload


class PoseScoreTables(Callback):
    """Writes `per_action.csv` (or `per_sequence.csv`) and `per_joint.csv` into the run directory.

    Those of validation are of the last epoch. On synthetic data the predictions of simple
    baselines stand beside the result, and the tables say that it is synthetic.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the tables of the validated split."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the tables of the tested split."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        scores = getattr(module, "scores", {}).get(stage)
        if not trainer.is_global_zero or not isinstance(scores, PoseScores):
            return
        assert isinstance(module, Workload)
        directory, info = Path(trainer.default_root_dir), module.info
        kind = "action" if info.get("average") == "groups" else "sequence"
        names = list(scores.overall)
        groups = [
            [name, *row] for name, row in zip(info["groups"], scores.groups.tolist(), strict=True)
        ]
        overall = [["mean", *scores.overall.values()]]
        baselines = [
            [f"{name} (baseline)", p1, *[None] * (len(names) - 1)]
            for name, p1 in (info.get("baselines") or {}).items()
        ]
        _table(directory / f"per_{kind}.csv", [kind, *names], groups + overall + baselines)
        joints = getattr(module, "skeleton").names  # noqa: B009
        rows = [list(row) for row in zip(joints, scores.joints.tolist(), strict=True)]
        _table(directory / "per_joint.csv", ["joint", "p1"], rows)


def _table(path: Path, header: list[str], rows: list[list[str | float | None]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name, *values in rows:
            writer.writerow([name, *("" if v is None or v != v else f"{v:.6f}" for v in values)])
