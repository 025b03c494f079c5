"""Predictions of `test` and `predict` as one table, in the order of the data set."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from blocks.errors import SuiteError
from blocks.files import atomic_path
from lightning_modules.gathering import gathered
from lightning_modules.workload import Workload

Row = tuple[int, str, str, str, str, str]
COLUMNS = ("index", "path", "label", "prediction", "probability", "top5")


class PredictionTable(Callback):
    """Writes `predictions.csv` or `.parquet` into the run directory, complete or not at all.

    Columns: index, path, label (empty if unknown), prediction, its probability, and the five most
    likely classes as `name:probability` joined by semicolons.

    Args:
        format: `csv`, or `parquet` for large sets: typed columns, with null for an unknown label.
    """

    def __init__(self, format: Literal["csv", "parquet"] = "csv") -> None:
        super().__init__()
        self.format = format
        self._rows: list[Row] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier run."""
        self._rows = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes sure that classes have names before hours of work."""
        self._rows = []
        assert isinstance(pl_module, Workload)
        if not pl_module.info.get("class_names"):
            raise SuiteError(
                expected="class names, stored in a checkpoint of this suite",
                found="untrained weights and a folder without classes",
                where="bimamba predict",
                cure="add --ckpt_path runs/.../checkpoints/last.ckpt",
            )

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Adds a batch."""
        self._add(pl_module, outputs["logits"].softmax(dim=1), batch)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Adds a batch."""
        self._add(pl_module, outputs["probabilities"], batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        self._write(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        self._write(trainer)

    def _add(self, module: LightningModule, probabilities: Tensor, batch: dict[str, Any]) -> None:
        assert isinstance(module, Workload)
        names = module.info["class_names"]
        best, guesses = probabilities.float().cpu().topk(min(5, len(names)), dim=1)
        for i, path in enumerate(batch["path"]):
            guessed = [str(names[guess]) for guess in guesses[i].tolist()]
            label, p = int(batch["label"][i]), [f"{value:.4f}" for value in best[i].tolist()]
            top = ";".join(f"{name}:{value}" for name, value in zip(guessed, p, strict=True))
            truth = names[label] if label >= 0 else ""
            self._rows.append((int(batch["index"][i]), path, truth, guessed[0], p[0], top))

    def _write(self, trainer: Trainer) -> None:
        rows = gathered(trainer, self._rows)
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / f"predictions.{self.format}"
        write = write_csv if self.format == "csv" else write_parquet
        with atomic_path(path) as temporary:
            write(temporary, sorted(rows))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Text as it is; file names may hold bytes that are no UTF-8 and come out as they went in."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Typed columns; bytes of file names that are no UTF-8 become question marks."""
    import pyarrow
    from pyarrow import parquet

    index, paths, labels, predictions, probabilities, top5 = (
        zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    )
    columns = {
        "index": pyarrow.array(index, pyarrow.int64()),
        "path": [path.encode("utf-8", "replace").decode() for path in map(str, paths)],
        "label": [label or None for label in labels],
        "prediction": predictions,
        "probability": pyarrow.array(map(float, probabilities), pyarrow.float32()),
        "top5": top5,
    }
    texts = ("path", "label", "prediction", "top5")
    columns |= {name: pyarrow.array(columns[name], pyarrow.string()) for name in texts}
    parquet.write_table(pyarrow.table(columns), path)
