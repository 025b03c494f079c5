"""Training that begins shallow and deepens the network on its way.

    trainer:
      callbacks:
        - class_path: ProgressiveDepth
          init_args:
            stages: [{depth: 4, epochs: 30}, {depth: 6, epochs: 30}, {depth: 8}]

At each switch the network computes what it did before (`lightning_modules.growth`), the optimiser
keeps its moments, EMA its average, and the new blocks' learning rate warms up from 0.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import LambdaLR

from blocks.errors import SuiteError
from lightning_modules.freeze import apply_freezes
from lightning_modules.growth import blocks_of, grow
from lightning_modules.optimization import group_settings, parameter_groups
from lightning_modules.workload import Workload, run_seed

Factor = Callable[[int], float]


@dataclass(frozen=True)
class DepthStage:
    """A part of the run.

    Args:
        depth: Blocks of the network.
        epochs: How long; `null` = to the end, for the last stage.
    """

    depth: int
    epochs: int | None = None


class ProgressiveDepth(Callback):
    """Deepens the network at the beginning of chosen epochs.

    Args:
        stages: In order of depth; the first is the depth that the network is configured with.
        warmup_epochs: Epochs in which the learning rate of new blocks rises from 0 to the others'.
    """

    # `lightning_modules.growth.regrow` asks for it before a checkpoint is loaded.
    grows: ClassVar[bool] = True

    def __init__(self, stages: list[DepthStage], warmup_epochs: float = 1.0) -> None:
        super().__init__()
        depths = [stage.depth for stage in stages]
        lengths = [stage.epochs for stage in stages[:-1]]
        if (
            not stages
            or depths != sorted(set(depths))
            or any(not length or length < 1 for length in lengths)
        ):
            raise SuiteError(
                expected="stages of rising depth, each but the last with its epochs",
                found=", ".join(f"{s.depth} for {s.epochs} epochs" for s in stages) or "none",
                where="trainer.callbacks: ProgressiveDepth.stages",
                cure="e.g. [{depth: 4, epochs: 30}, {depth: 6, epochs: 30}, {depth: 8}]",
            )
        self.stages, self.warmup_epochs = stages, warmup_epochs
        # First epoch of each stage.
        self.begins = np.cumsum([0, *(length or 0 for length in lengths)]).tolist()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares network, run and strategy with the stages.

        Raises:
            SuiteError: They do not fit.
        """
        present = len(blocks_of(pl_module.get_submodule("network")))
        if stage == "fit":
            self._check(trainer, present)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Groups the parameters of a network that had grown before, as it was when it was saved."""
        if len(blocks_of(pl_module.get_submodule("network"))) > self.stages[0].depth:
            self._regroup(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Grows where a stage begins."""
        network = pl_module.get_submodule("network")
        present = len(blocks_of(network))
        depth = max(
            stage.depth
            for stage, begin in zip(self.stages, self.begins, strict=True)
            if begin <= trainer.current_epoch
        )
        if depth <= present:
            return
        with torch.random.fork_rng(devices=[]):  # New weights are the same whatever came before.
            words = np.random.SeedSequence((run_seed(), depth)).generate_state(1)
            torch.manual_seed(int(words[0]))
            grow(network, depth)
        apply_freezes(getattr(trainer, "callbacks", ()), network)
        self._regroup(trainer, pl_module)
        if isinstance(trainer.strategy, DDPStrategy):
            # Its reducer listens to the parameters it was built with.
            trainer.strategy.model = trainer.strategy._setup_model(pl_module)
        rank_zero_info(f"epoch {trainer.current_epoch}: depth {present} -> {depth}")

    def _check(self, trainer: Trainer, present: int) -> None:
        first = self.stages[0].depth
        if present != first:
            raise SuiteError(
                expected=f"a network of depth {first}, that of the first stage",
                found=f"depth {present}",
                where="model.init_args.network.init_args.depth",
                cure=f"set it to {first}, or change the stages",
            )
        if 0 < (trainer.max_epochs or 0) <= self.begins[-1]:
            raise SuiteError(
                expected=f"more than {self.begins[-1]} epochs, so that every stage is reached",
                found=f"trainer.max_epochs {trainer.max_epochs}",
                where="trainer.callbacks: ProgressiveDepth.stages",
                cure="train longer, or shorten the stages",
            )
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise SuiteError(
                expected="a strategy with whole parameters in each process (auto, ddp)",
                found=type(trainer.strategy).__name__,
                where="trainer.callbacks: ProgressiveDepth",
                cure="use trainer.strategy: ddp",
            )

    def _regroup(self, trainer: Trainer, module: LightningModule) -> None:
        """Makes a group of each stage's new parameters; moments stay with their parameters."""
        assert isinstance(module, Workload)
        (optimizer,), (entry,) = trainer.optimizers, trainer.lr_scheduler_configs
        scheduler = entry.scheduler
        assert isinstance(scheduler, LambdaLR)
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        known = {
            group["name"]: (group, factor)
            for group, factor in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True)
        }
        wanted = parameter_groups(module, module.optimizer_config)
        groups, factors = [], []
        for number, stage in enumerate(self.stages):
            for group in wanted:
                chosen = [p for p in group["params"] if self._born(names[id(p)]) == number]
                base, factor = known[group["name"]]
                if not chosen:
                    continue
                name = group["name"] + f"_depth{stage.depth}" * (number > 0)
                made, own = known.get(name, ({**base, "name": name}, None))
                made["params"] = chosen
                groups.append(made)
                factors.append(own or self._warmed(factor, number, trainer, entry.interval))
        optimizer.param_groups[:] = groups
        scheduler.lr_lambdas = factors
        scheduler.base_lrs = [group["initial_lr"] for group in groups]
        rates = [
            base * factor(scheduler.last_epoch)
            for base, factor in zip(scheduler.base_lrs, factors, strict=True)
        ]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates
        module._settings = group_settings(optimizer)

    def _born(self, name: str) -> int:
        """Number of the stage in which a parameter came; 0 for what was there from the start."""
        block = re.match(r"network\.(?:layers|blocks)\.(\d+)\.", name)
        if block is None:
            return 0
        return next(n for n, stage in enumerate(self.stages) if int(block[1]) < stage.depth)

    def _warmed(self, factor: Factor, number: int, trainer: Trainer, interval: str) -> Factor:
        """A schedule's factor, times a rise over the first ticks of a stage."""
        if number == 0:
            return factor
        accumulated = trainer.accumulate_grad_batches
        ticks = 1 if interval == "epoch" else -(-int(trainer.num_training_batches) // accumulated)
        begin, length = self.begins[number] * ticks, max(self.warmup_epochs * ticks, 1)
        return lambda tick: factor(tick) * min(max((tick - begin + 1) / length, 0.0), 1.0)
