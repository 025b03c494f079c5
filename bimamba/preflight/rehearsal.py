"""The last two steps of a check: one training batch and one validation batch, as `fit` does them.

A Trainer of its own runs them on one device with the configured precision and callbacks. What the
other devices would add to a step counts as accumulated batches, so the learning rate is the true
one; what callbacks write goes to a folder that is deleted.
"""

import math
import time
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, GradientAccumulationScheduler, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import Precision
from torch import Tensor

from bimamba.cli import SuiteCLI
from bimamba.findings import size
from bimamba.preflight.case import Case
from blocks.errors import SuiteError
from lightning_modules.guards import first_bad_layer
from lightning_modules.workload import Workload


class FirstBatch(Callback):
    """Stops after the first batch and looks at its loss and gradients.

    Args:
        strict: Whether a gradient must be finite; loss scaling of float16 may overflow at first.
    """

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.strict = strict
        self.trained = False
        self.loss, self.seconds, self.parameters = math.nan, 0.0, 0
        self.metrics: dict[str, Tensor] = {}
        self.later_error: Exception | None = None
        self._batch: Any = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock, and keeps the batch in case its loss has to be explained."""
        self.seconds, self._batch = -time.monotonic(), batch

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """The loss is a finite number."""
        self.loss = loss.item() * trainer.accumulate_grad_batches
        if not math.isfinite(self.loss):
            layer = first_bad_layer(pl_module, self._batch)
            raise SuiteError(
                expected="a finite loss for the first batch",
                found=f"{self.loss}" + (f", from layer {layer}" if layer else ""),
                where=f"{type(pl_module).__name__}, first training batch",
                cure="try --trainer.precision 32-true, and --trainer.detect_anomaly true, which "
                "names the operation; look for log(0), x / 0 and labels out of range",
            )

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every trainable parameter has a finite gradient."""
        known = [(n, p.grad) for n, p in pl_module.named_parameters() if p.requires_grad]
        self.parameters = len(known)
        absent = [name for name, grad in known if grad is None]
        if absent:
            raise SuiteError(
                expected=f"a gradient for each of {len(known)} trainable parameters",
                found=f"none for {_some(absent)}",
                where=f"{type(pl_module).__name__}, first training batch",
                cure="let forward use it, remove it, or freeze it with requires_grad_(False)",
            )
        wrong = [name for name, grad in known if grad is not None and not grad.isfinite().all()]
        if wrong and self.strict:
            raise SuiteError(
                expected="finite gradients",
                found=f"NaN or infinity for {_some(wrong)}, with a loss of {self.loss:.4g}",
                where=f"{type(pl_module).__name__}, first training batch",
                cure="try --trainer.precision 32-true, and --trainer.detect_anomaly true, which "
                "names the operation; sqrt and norm have no gradient at 0",
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Ends training, which starts validation."""
        self.seconds += time.monotonic()
        self.trained = trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the metrics."""
        self.metrics = dict(trainer.callback_metrics)


def training_batch(case: Case) -> str:
    """One batch forward and backward.

    Raises:
        SuiteError: Loss or a gradient is not finite, or a parameter gets no gradient.
    """
    cli = case.cli
    case.first_batch = first = FirstBatch(strict=cli.trainer.precision not in {"16-mixed", "16"})
    trainer = one_device_trainer(cli, first, str(case.scratch))
    try:
        trainer.fit(cli.model, datamodule=cli.datamodule)
    except Exception as error:
        if not first.trained:
            raise
        first.later_error = error  # The next step's to tell.
    text = f"loss {first.loss:.4g}, gradients for all {first.parameters} parameters"
    text += f", {first.seconds:.1f} s"
    if trainer.strategy.root_device.type == "cuda":
        text += f", {size(torch.cuda.max_memory_allocated())} of GPU memory"
    return text


def validation(case: Case) -> str:
    """One validation batch; the metric that chooses the best checkpoint is among the results.

    Raises:
        SuiteError: Validation fails, or does not log the metric that it should.
    """
    first, module = case.first_batch, cast(Workload, case.cli.model)
    if first.later_error is not None:
        raise first.later_error
    if case.cli.trainer.limit_val_batches == 0:
        return "switched off by trainer.limit_val_batches"
    if module.monitor not in first.metrics:
        raise SuiteError(
            expected=f"{module.monitor}, the metric that chooses the best checkpoint",
            found=", ".join(sorted(first.metrics)) or "no metric",
            where=f"{type(module).__name__}.monitor",
            cure="log it in _shared_step for the stage val, or monitor what is logged",
        )
    shown = [
        f"{name} {value:.4g}" for name, value in first.metrics.items() if name.startswith("val/")
    ]
    return ", ".join(shown)


def one_device_trainer(cli: SuiteCLI, first: FirstBatch, folder: str) -> Trainer:
    """The configured Trainer, on one device, without checkpoints, loggers and their callbacks.

    Args:
        cli: The built command.
        first: Ends the run.
        folder: Where callbacks may write.
    """
    given, full = vars(cli._get(cli.config_init, "trainer")), cli.trainer
    unwanted = (Checkpoint, ProgressBar, GradientAccumulationScheduler)
    plugins = given["plugins"]
    plugins = plugins if isinstance(plugins, list) else [plugins]
    changes: dict[str, Any] = {
        "devices": full.device_ids[:1] if full.strategy.root_device.type == "cuda" else 1,
        "num_nodes": 1,
        "strategy": "auto",
        "accumulate_grad_batches": full.accumulate_grad_batches * full.num_devices * full.num_nodes,
        "plugins": [p for p in plugins if isinstance(p, Precision)] or None,
        "callbacks": [c for c in given["callbacks"] or [] if not isinstance(c, unwanted)] + [first],
        "default_root_dir": folder,
        "logger": DummyLogger(),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "fast_dev_run": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0 if full.limit_val_batches == 0 else 1,
        "check_val_every_n_epoch": 1,
        "val_check_interval": None,
        "min_epochs": None,
        "min_steps": None,
        "profiler": None,
    }
    return Trainer(**{**given, **changes})


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
