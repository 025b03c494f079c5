"""Descriptors of `predict` as one file, in the order of the data set."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from blocks.files import atomic_path
from lightning_modules.gathering import gathered

_FACTS = ("identity", "camera", "view", "role")


class FeatureFile(Callback):
    """Writes `features.npz` into the run directory, complete or not at all.

    Arrays over N images: `features` (N, F) float32, `path` (N,) text, `index` (N,), and `identity`,
    `camera`, `view`, `role` (N,) as far as the data knows them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[dict[str, np.ndarray[Any, Any]]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier run."""
        self._parts = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Adds a batch."""
        part = {name: batch[name].cpu().numpy() for name in ("index", *_FACTS) if name in batch}
        part["features"] = outputs["features"].float().cpu().numpy()
        part["path"] = np.array([str(path) for path in batch["path"]])
        self._parts.append(part)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        parts, self._parts = gathered(trainer, self._parts), []
        if not trainer.is_global_zero or not parts:
            return
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        # Each image once, and in order, whichever process saw it.
        _, order = np.unique(whole["index"], return_index=True)
        path = Path(trainer.default_root_dir) / "features.npz"
        sorted_rows: dict[str, Any] = {name: values[order] for name, values in whole.items()}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **sorted_rows)
