"""`summary.json`: what a run was, cost and reached, written as it goes.

Tables and comparisons read only this file and its neighbours, so it is valid JSON at any moment.
"""

import functools
import importlib.metadata
import math
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from blocks.files import write_json
from lightning_modules.architecture import module_tree
from lightning_modules.cost import ForwardCost
from lightning_modules.energy import EnergyCounter
from lightning_modules.workload import Workload, run_seed

resource: Any = None  # Windows has none.
with suppress(ImportError):
    import resource

SCHEMA = 1
_PACKAGES = ("bimamba-suite", "torch", "lightning", "timm", "torchmetrics", "numpy")


class RunSummary(Callback):
    """Writes `summary.json` into the run directory, and the tree of its network, `network.json`.

    Args:
        experiment: Name of the experiment, the folder above the run's.
        run: Name of the run.
    """

    def __init__(self, experiment: str, run: str) -> None:
        super().__init__()
        self.experiment, self.run = experiment, run
        self.best: dict[str, float | None] = {}
        self.best_step = 0
        self._started = time.monotonic()
        self._stage = "fit"
        self._earlier_seconds = 0.0
        self._train_seconds = 0.0
        self._batch_started = 0.0
        self._samples = 0
        self._epoch_began = (0, 0.0)
        self._cost = ForwardCost()
        self._energy: EnergyCounter | None = None
        self._earlier_joules = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the clock and leaves a first summary with status `running`."""
        self._stage = stage
        self._started = time.monotonic()
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._energy = EnergyCounter(trainer.strategy.root_device)
        self._write(trainer, pl_module, "running")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for the first call of the network, to count its operations."""
        if trainer.is_global_zero and isinstance(pl_module, Workload):
            self._cost.watch(pl_module.network)
            path = Path(trainer.default_root_dir) / "network.json"
            write_json(path, module_tree(pl_module.network))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers where the epoch's own count begins."""
        self._epoch_began = (self._samples, self._train_seconds)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Times the step itself, so that samples/s excludes validation."""
        self._batch_started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Counts samples of all processes."""
        self._train_seconds += time.monotonic() - self._batch_started
        self._samples += _batch_size(batch) * trainer.world_size
        self._cost.count(_batch_size(batch), trainer.precision_plugin.forward_context())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs `perf/samples_per_second` of the epoch and `perf/peak_memory` in bytes so far."""
        device = trainer.strategy.root_device
        if device.type == "cuda":  # Steps were only queued so far; their work counts as well.
            waiting = time.monotonic()
            torch.cuda.synchronize(device)
            self._train_seconds += time.monotonic() - waiting
        samples, seconds = self._epoch_began
        speed = (self._samples - samples) / max(self._train_seconds - seconds, 1e-9)
        cost = {"perf/samples_per_second": speed, "perf/peak_memory": float(_peak_memory(device))}
        options: dict[str, Any] = {"sync_dist": True, "reduce_fx": "max", "batch_size": 1}
        pl_module.log_dict(cost, on_step=False, on_epoch=True, **options)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the metrics of the best epoch."""
        if trainer.sanity_checking or not isinstance(pl_module, Workload):
            return
        metrics = _metrics(trainer)
        value, best = metrics.get(pl_module.monitor), self.best.get(pl_module.monitor)
        better = max if pl_module.mode == "max" else min
        if value is not None and (best is None or better(value, best) == value != best):
            self.best, self.best_step = metrics, trainer.global_step
        self._write(trainer, pl_module, "running")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must remember of its former life."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "seconds": self._earlier_seconds + time.monotonic() - self._started,
            "train_seconds": self._train_seconds,
            "samples": self._samples,
            "joules": self._joules(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting, unless the checkpoint is only evaluated."""
        if self._stage != "fit":
            return
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self._earlier_seconds = state_dict["seconds"]
        self._train_seconds = state_dict["train_seconds"]
        self._samples = state_dict["samples"]
        self._earlier_joules = state_dict.get("joules") or 0.0
        self._epoch_began = (self._samples, self._train_seconds)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Says how the run ended when it did not end well."""
        stopped = isinstance(exception, KeyboardInterrupt) or "SIGTERM" in type(exception).__name__
        self._write(trainer, pl_module, "interrupted" if stopped else "failed")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the final summary; Lightning tears down only what ended well."""
        self._write(trainer, pl_module, "finished")

    def _joules(self) -> float | None:
        joules = self._energy.update() if self._energy else None
        return None if joules is None else round(self._earlier_joules + joules, 1)

    def _write(self, trainer: Trainer, module: LightningModule, status: str) -> None:
        if not trainer.is_global_zero or not isinstance(module, Workload):
            return
        sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
        info, metrics = module.info, _metrics(trainer)
        raw = {name: value for name, value in metrics.items() if name.startswith("val_raw/")}
        write_json(
            Path(trainer.default_root_dir) / "summary.json",
            {
                "schema": SCHEMA,
                "run": self.run,
                "experiment": self.experiment,
                "workload": type(module).__name__,
                "status": status,
                "seed": run_seed(),
                "monitor": module.monitor,
                "mode": module.mode,
                "units": dict(module.units),
                "metrics": {"best": self.best, "last": metrics, "raw": raw},
                "best_step": self.best_step,
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "params": sum(size for size, _ in sizes),
                "trainable_params": sum(size for size, trainable in sizes if trainable),
                "macs": self._cost.macs,
                "macs_counter": self._cost.counter,
                "seconds": round(self._earlier_seconds + time.monotonic() - self._started, 2),
                "samples_per_second": round(self._samples / self._train_seconds, 1)
                if self._train_seconds
                else None,
                "peak_memory": _peak_memory(trainer.strategy.root_device),
                "joules": self._joules(),
                "joules_counter": self._energy.source if self._energy else None,
                "device": device_name(trainer.strategy.root_device),
                "processes": trainer.world_size,
                "protocol": info.get("protocol"),
                "data": {name: info.get(name) for name in ("root", "synthetic", "hash")},
                "versions": _versions(),
                "git": _git_revision(),
            },
        )


def _metrics(trainer: Trainer) -> dict[str, float | None]:
    """Metrics as JSON knows numbers: what is not finite becomes null. Costs stand elsewhere."""
    found = trainer.callback_metrics.items()
    values = {name: float(value) for name, value in found if not name.startswith("perf/")}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _batch_size(batch: dict[str, Any]) -> int:
    """Samples: as many as are numbered, for a batch of scenes has more points than scenes.

    Of batches side by side, all of theirs.
    """
    if isinstance(batch.get("index"), torch.Tensor):
        return len(batch["index"])
    if all(isinstance(part, dict) for part in batch.values()):
        return sum(_batch_size(part) for part in batch.values())
    return next((len(v) for v in batch.values() if isinstance(v, torch.Tensor)), 0)


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's.

    Args:
        device: Where a run computes.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # No Linux.
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    kind = names[0] if names else platform.processor() or platform.machine()
    return f"{kind}, {torch.get_num_threads()} threads"


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU in use, else of this process; 0 where the system keeps silent."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _git_revision() -> dict[str, Any] | None:
    """Revision of the suite's checkout as the run began; `None` if installed from a wheel."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        rev = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"rev": rev.stdout.strip(), "dirty": bool(status.stdout.strip())}
