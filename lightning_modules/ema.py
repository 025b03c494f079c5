"""Exponential moving average of the weights, honest about which weights are where.

    average <- d average + (1 - d) weights,   d = min(decay, (1 + t) / (10 + t)) at update t

Only trainable parameters are averaged; buffers (BatchNorm statistics, tables) and frozen parts are
used as they are. A checkpoint holds the average under `state_dict` and the weights in training
under `current_model_state`, whatever was swapped in when it was taken.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from blocks.errors import SuiteError

Weights = dict[str, Tensor]


class EMA(Callback):
    """Averages the weights while training and evaluates the average.

    Metrics `val/*` are those of the average, `val_raw/*` those of the weights in training.

    Args:
        decay: Weight of the past, in 0..1; 0.9999 averages over some ten thousand steps.
        warmup: Start with a small decay, min(decay, (1 + t) / (10 + t)). Off, the average starts
            at the initial weights and forgets them slowly, as in hustvl/Vim and DeiT.
        start_step: Optimiser steps before averaging begins; until then the weights themselves are
            validated.
        every_n_steps: Optimiser steps between two updates.
        validate_raw: Also report `val_raw/*`, at the cost of a second forward pass.
        device: Where to keep the average, such as `cpu` to spare the accelerator's memory at the
            cost of a transfer an update; `null` = beside the weights.
    """

    def __init__(
        self,
        decay: float = 0.9999,
        warmup: bool = True,
        start_step: int = 0,
        every_n_steps: int = 1,
        validate_raw: bool = True,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1 or every_n_steps < 1:
            raise SuiteError(
                expected="decay in [0, 1) and every_n_steps of at least 1",
                found=f"decay={decay}, every_n_steps={every_n_steps}",
                where="EMA",
                cure="0.9999 and 1 are the usual choice",
            )
        self.decay, self.warmup = decay, warmup
        self.start_step, self.every_n_steps = start_step, every_n_steps
        self.validate_raw, self.device = validate_raw, device
        self.updates = 0
        self._last_step = -1
        # While the average is in the module, this holds the weights in training.
        self._outside: Weights = {}
        self._average_inside = False
        # Loaded for an evaluation: the average is what the module holds afterwards, too.
        self._average_at_home = False

    @property
    def averaging(self) -> bool:
        """Whether there is an average yet."""
        return bool(self._outside)

    def roles(self, module: LightningModule) -> tuple[Weights, Weights]:
        """The average and the weights in training, by parameter name, whichever is swapped in."""
        inside = {
            name: p.detach() for name, p in module.named_parameters() if name in self._outside
        }
        return (inside, self._outside) if self._average_inside else (self._outside, inside)

    def adopt(self, outside: Weights, updates: int, inside: bool = False) -> None:
        """Goes on from a checkpoint.

        Args:
            outside: The weights that the module did not get, by parameter name.
            updates: How many made the average.
            inside: The module got the average, as for an evaluation; else the weights in training.
        """
        self._outside, self.updates = outside, updates
        self._average_inside = self._average_at_home = inside

    @contextmanager
    def raw_weights(self, module: LightningModule) -> Iterator[None]:
        """Puts the weights in training back for the length of the block."""
        if self._average_inside:
            self._swap(module)
            try:
                yield
            finally:
                self._swap(module)
        else:
            yield

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses strategies whose parameters are not whole tensors."""
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
            raise SuiteError(
                expected="a strategy with whole parameters in each process (auto, ddp)",
                found=type(trainer.strategy).__name__,
                where="trainer.callbacks: EMA",
                cure="use trainer.strategy: ddp, or take EMA out",
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the present weights, or from a checkpoint's average."""
        self._last_step = trainer.global_step
        if self._average_at_home:  # A checkpoint was evaluated before; training goes on elsewhere.
            self._average_inside = self._average_at_home = False
            self._outside, self.updates = {}, 0
        if self._outside:
            device = self.device or pl_module.device
            self._outside = {name: value.to(device) for name, value in self._outside.items()}
        elif trainer.global_step >= self.start_step:
            self._start(pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Updates after optimiser steps, not after accumulated batches."""
        step = trainer.global_step
        if step == self._last_step or step % self.every_n_steps:
            return
        self._last_step = step
        if step < self.start_step:
            return
        if not self._outside:
            self._start(pl_module)
            return
        self._update(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validates the average."""
        self._put_average_inside(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on training the weights."""
        self._put_weights_inside(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tests the average."""
        self._put_average_inside(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the weights back."""
        self._put_weights_inside(pl_module)

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predicts with the average."""
        self._put_average_inside(pl_module)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the weights back."""
        self._put_weights_inside(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leaves the module with the weights in training, wherever it was interrupted."""
        self._put_weights_inside(pl_module)

    def _start(self, module: LightningModule) -> None:
        trainable = ((name, p) for name, p in module.named_parameters() if p.requires_grad)
        self._outside = {name: self._kept(p) for name, p in trainable}

    def _kept(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to(self.device or parameter.device, copy=True)

    @torch.no_grad()
    def _update(self, module: LightningModule) -> None:
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = []
        for name, parameter in module.named_parameters():
            if name in self._outside:
                average = self._outside[name]
                pairs.append((average, parameter.to(average.device)))
            elif parameter.requires_grad:  # Thawed since: its average starts here.
                self._outside[name] = self._kept(parameter)
        averages, weights = zip(*pairs, strict=True)
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def _put_average_inside(self, module: LightningModule) -> None:
        if self._outside and not self._average_inside:
            self._swap(module)

    def _put_weights_inside(self, module: LightningModule) -> None:
        if self._average_inside and not self._average_at_home:
            self._swap(module)

    def _swap(self, module: LightningModule) -> None:
        """Exchanges storage, not values: on one device nothing is copied."""
        for name, parameter in module.named_parameters():
            if name in self._outside:
                inside, outside = parameter.data, self._outside[name]
                parameter.data = outside.to(inside.device)
                self._outside[name] = inside.to(self.device or inside.device)
        self._average_inside = not self._average_inside
