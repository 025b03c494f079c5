"""Non-finite losses and gradients: found at the step where they arise, with the layer's name."""

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from blocks.errors import SuiteError
from lightning_modules.sharding import FullySharded


class NonFiniteGuard(Callback):
    """Looks at the gradients before each optimiser step.

    Args:
        mode: `stop` ends the run and names the layer; `skip` leaves the step out, counts it in
            `train/skipped_steps` and goes on (hustvl/Vim's `--if_continue_inf`); `zero` takes it
            with zeros for the entries that are not finite, and counts it in `train/mended_steps`
            (`--if_nan2num`, which does so to the loss). Gradients of 16-bit floats with a loss
            scaler are left to the scaler, which skips steps by itself.
        patience: Steps skipped or mended in a row before the run ends all the same.
    """

    def __init__(self, mode: Literal["stop", "skip", "zero"] = "stop", patience: int = 20) -> None:
        super().__init__()
        self.mode, self.patience = mode, patience
        self.skipped, self.mended, self.in_a_row = 0, 0, 0
        self._batch: Any = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch, to ask the layers about it should it turn out bad."""
        self._batch = batch

    def on_train_batch_end(self, *_: Any) -> None:
        """Lets the batch go."""
        self._batch = None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Stops at, skips or mends a step with non-finite gradients."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        gradients = [_local(p.grad) for p in pl_module.parameters() if p.grad is not None]
        finite = _all_finite(gradients)
        if isinstance(trainer.strategy, FullySharded):  # Each process saw its shards alone.
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite:
            self.in_a_row = 0
            return
        if self.mode != "stop" and self.in_a_row < self.patience:
            self.in_a_row += 1
            done = "skipped" if self.mode == "skip" else "mended"
            if self.skipped + self.mended == 0:
                rank_zero_warn(f"step {trainer.global_step} {done}: {self._culprit(pl_module)}")
            if self.mode == "skip":
                self.skipped += 1
                optimizer.zero_grad(set_to_none=True)  # Nothing to step on: moments stay, too.
            else:
                self.mended += 1
                for gradient in gradients:
                    gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            count = float(self.skipped if self.mode == "skip" else self.mended)
            pl_module.log(f"train/{done}_steps", count, on_step=True, on_epoch=False)
            return
        raise SuiteError(
            expected="finite gradients",
            found=self._culprit(pl_module),
            where=f"epoch {trainer.current_epoch}, optimiser step {trainer.global_step}",
            cure="lower optimizer.lr, clip gradients (trainer.gradient_clip_val: 1.0), train in "
            "32-true, or skip such steps (callbacks: NonFiniteGuard, mode: skip)",
        )

    def state_dict(self) -> dict[str, Any]:
        """The count goes on in a resumed run."""
        return {"skipped": self.skipped, "mended": self.mended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the count."""
        self.skipped, self.mended = state_dict["skipped"], state_dict.get("mended", 0)

    def _culprit(self, module: LightningModule) -> str:
        """The first layer with a non-finite output, else the parameters with such gradients."""
        if (layer := first_bad_layer(module, self._batch)) is not None:
            return f"a non-finite output of layer {layer}"
        named = ((name, p.grad) for name, p in module.named_parameters() if p.grad is not None)
        bad = [name for name, gradient in named if not bool(gradient.isfinite().all())]
        return f"non-finite gradients of {len(bad)} parameters, {', '.join(bad[:3])} among them"


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient.detach()


def _all_finite(tensors: list[Tensor]) -> bool:
    extremes = [t.abs().max() for t in tensors if t.numel()]
    return not extremes or bool(torch.stack(extremes).isfinite().all())


def first_bad_layer(module: LightningModule, batch: Any) -> str | None:
    """The first layer with a non-finite output, `None` if there is none or the batch is unknown.

    Runs the batch once more and listens; what fails here must not hide the first failure.

    Args:
        module: Has a `network`.
        batch: The batch in question.
    """
    found: list[str] = []

    def listen(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple | list) else (output,)
            tensors = [t for t in outputs if isinstance(t, Tensor) and t.is_floating_point()]
            if not found and not all(bool(t.isfinite().all()) for t in tensors):
                found.append(name)

        return hook

    leaves = [(n, m) for n, m in module.named_modules() if n and not list(m.children())]
    handles = [layer.register_forward_hook(listen(name)) for name, layer in leaves]
    inputs = next((v for v in batch.values() if isinstance(v, Tensor)), None) if batch else None
    try:
        with torch.no_grad():
            if inputs is not None:
                module.get_submodule("network")(inputs)
    except Exception:
        return None
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
