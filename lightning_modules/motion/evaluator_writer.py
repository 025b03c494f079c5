"""Keeps the best evaluator of a run as a file that every repository of this field can load."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules.ema import EMA
from lightning_modules.motion.evaluator_files import NAME, save_evaluator
from lightning_modules.workload import Workload

# What is written down of the data.
_FACTS = ("hash", "mode", "synthetic", "word_vectors", "max_frames", "fps", "root")


class EvaluatorWriter(Callback):
    """Writes `evaluator/finest.tar` and `evaluator/meta/` into the run directory.

    It holds the weights of the best validation by the module's `monitor`, under the keys of
    EricGuo5513/text-to-motion, and what data made it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.best: float | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file if this validation is the best so far."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, Workload)
        metric = trainer.callback_metrics.get(pl_module.monitor)
        value = float("nan") if metric is None else float(metric)
        worse = self.best is not None and (
            value <= self.best if pl_module.mode == "max" else value >= self.best
        )
        # Too few samples for a score: the latest is as good as any.
        if worse or (value != value and self.best is not None):
            return
        self.best = None if value != value else value
        if trainer.is_global_zero:
            self._write(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says where the file is."""
        path = self._path(trainer)
        if path.is_file():
            rank_zero_info(f"evaluator: {path}")

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on comparing."""
        self.best = state_dict["best"]

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "evaluator" / NAME

    def _write(self, trainer: Trainer, module: Workload) -> None:
        prefix = "network."
        state = dict(module.state_dict())
        for callback in getattr(trainer, "callbacks", ()):
            if isinstance(callback, EMA) and callback.averaging:
                state |= callback.roles(module)[0]
        space: Any = getattr(module, "input")  # noqa: B009
        network: Any = module.network
        save_evaluator(
            self._path(trainer),
            network,
            space.mean,
            space.std,
            {name: module.info.get(name) for name in _FACTS},
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)},
            trainer.current_epoch,
            trainer.global_step,
        )
