"""Loggers of a run: all of them in its directory, `metrics.csv` always among them.

W&B and TensorBoard come beside the CSV file, which the tools of the suite read, never instead.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lightning_modules.metrics_log import MetricsLog
from lightning_modules.workload import Workload

# What makes a run comparable; its name, folder and the verb's own options do not.
_LOGGED = ("model", "data", "trainer", "seed_everything")


def build_logger(
    kind: type[Logger], directory: Path, options: Mapping[str, Any], resumed_step: int = 0
) -> Logger:
    """Builds a logger whose files lie in the run directory unless told otherwise.

    Args:
        kind: Any Lightning logger.
        directory: `runs/EXPERIMENT/RUN`; a `save_dir` of `.` means this one.
        options: Arguments of the logger. A W&B run takes name and group from the directory, and in
            a resumed run the id of the W&B run that is there already.
        resumed_step: Steps of the checkpoint that the run goes on from; TensorBoard forgets what
            an interrupted run logged after it.
    """
    options = dict(options)
    if str(options.get("save_dir")) == ".":
        options["save_dir"] = str(directory)
    if issubclass(kind, WandbLogger):
        earlier = sorted(directory.glob("wandb/*run-*-*"))  # [offline-]run-TIME-ID
        found = {
            "name": directory.name,
            "group": directory.parent.name,
            "version": earlier[-1].name.rpartition("-")[2] if earlier else None,
            "resume": "allow",
        }
        options |= {name: options.get(name) or value for name, value in found.items()}
    elif issubclass(kind, TensorBoardLogger) and resumed_step:
        options["purge_step"] = resumed_step
    return kind(**options)


def run_loggers(given: Any, directory: Path, resumed_step: int) -> list[Logger]:
    """The loggers of a run, first the one that writes `metrics.csv`.

    Args:
        given: `trainer.logger` as configured: a logger, several, or a bool; `False` means none.
        directory: The run directory.
        resumed_step: Optimiser steps of the checkpoint that the run goes on from.
    """
    if given is False:
        return []
    listed = [] if given in (None, True) else [given] if isinstance(given, Logger) else given
    others = [
        logger
        for logger in listed
        if not (isinstance(logger, CSVLogger) and Path(logger.log_dir) == directory)
    ]
    return [MetricsLog(directory, resumed_step), *others]


def log_config(trainer: Trainer, text: str) -> None:
    """Gives every logger the merged configuration; beside `metrics.csv` it lies as a file.

    Args:
        trainer: Its loggers are used.
        text: The configuration as YAML.
    """
    config = yaml.safe_load(text)
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            continue
        logger.log_hyperparams({name: config[name] for name in _LOGGED if name in config})
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("config", f"```yaml\n{text}\n```")


class BestCheckpoint(Callback):
    """Hands the best checkpoint to W&B as an artifact, and its score to TensorBoard's table."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs once, at the end; W&B keeps the path and copies nothing while it is offline."""
        if not isinstance(pl_module, Workload) or not trainer.is_global_zero:
            return
        best = _best(trainer, pl_module.monitor)
        if best is None:
            return
        score = float(best.best_model_score) if best.best_model_score is not None else None
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                artifact = wandb.Artifact(
                    f"model-{logger.experiment.id}", "model", metadata={pl_module.monitor: score}
                )
                artifact.add_file(best.best_model_path, "best.ckpt", policy="immutable")
                logger.experiment.log_artifact(artifact, aliases=["best"])
            elif isinstance(logger, TensorBoardLogger) and score is not None:
                logger.log_hyperparams(logger.hparams, {f"best/{pl_module.monitor}": score})


def finish_loggers(trainer: Trainer, *, failed: bool) -> None:
    """Closes the W&B run, so that the next run of this process gets one of its own.

    Args:
        trainer: Its loggers are closed.
        failed: How W&B shall show the run.
    """
    if any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=int(failed))


def _best(trainer: Trainer, monitor: str) -> ModelCheckpoint | None:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor == monitor:
            return callback if callback.best_model_path else None
    return None
