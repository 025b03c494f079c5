"""What every workload shares: network, one step for all stages, optimiser, honest checkpoints.

A workload subclasses `Workload`, sets `monitor` and `mode`, and writes `_shared_step`. Its
datamodule offers `info`, a frozen dataclass read once in `setup`; a checkpoint stores it beside the
constructor call, so inference needs neither the data set nor the YAML.
"""

import os
import random
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler, OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from blocks import Recorded
from blocks.errors import SuiteError
from blocks.recorded import plain
from blocks.weights import load_weights, read_state_dict
from lightning_modules.ema import EMA
from lightning_modules.freeze import apply_freezes, check_frozen, frozen_names
from lightning_modules.growth import regrow
from lightning_modules.optimization import (
    Optimizer,
    Schedule,
    build_optimizer,
    build_scheduler,
    check_lr,
    enforce_settings,
    group_settings,
    parameter_groups,
    scaled_lr,
)
from lightning_modules.resume import settle
from lightning_modules.sharding import FullySharded, shard

CHECKPOINT_SCHEMA = 1
# val_raw: validation of the weights in training beside that of their average (EMA).
Stage = Literal["train", "val", "val_raw", "test"]
Batch = dict[str, Any]


class Workload(Recorded, LightningModule):
    """Base of the four wings; not used by itself.

    Args:
        network: Plain module that knows nothing of training, given by `class_path` + `init_args`.
        optimizer: Optimiser and learning-rate rule.
        schedule: Warm-up and cosine.
        pretrained: Weights to start from: a file of ours, of the upstream project or safetensors.
        pretrained_weights: `model` or its moving average `model_ema`, where the file holds both.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor: ClassVar[str]
    mode: ClassVar[Literal["min", "max"]]
    # By the name after the stage; a metric without one is a pure number.
    units: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer = Optimizer(),
        schedule: Schedule = Schedule(),
        pretrained: str | None = None,
        pretrained_weights: Literal["model", "model_ema"] = "model",
        compile_network: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer_config = optimizer
        self.schedule_config = schedule
        self.pretrained = pretrained
        self.pretrained_weights = pretrained_weights
        self.compile_network = compile_network
        self.val_loss, self.val_raw_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.info: dict[str, Any] = {}

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Computes `loss` and what callbacks may show; logs the stage's metrics."""
        raise TypeError(f"{type(self).__name__} must define _shared_step(batch, stage)")

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Lets the data decide what the configuration left open, such as the number of classes."""

    def check_data(self) -> None:
        """Compares `self.info` with the network before the first batch; raises SuiteError."""

    def constructor_call(self) -> dict[str, Any]:
        """Networks as they are now, by argument: a head may have changed since they were built."""
        return {"network": plain(self.network, "network")}

    def fresh_entries(self) -> tuple[str, ...]:
        """Patterns of network entries that `pretrained` may leave untouched, such as a new head."""
        return ()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout, drop path and noise from the place in the run, so that none is stored."""
        key = (run_seed(), self.current_epoch, batch_idx, self.global_rank)
        words = [int(word) for word in np.random.SeedSequence(key).generate_state(3)]
        random.seed(words[0])
        np.random.seed(words[1])
        torch.manual_seed(words[2])

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: D102
        return self._shared_step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Validates what would be shipped, and beside an average the weights in training."""
        if (ema := self._ema) is not None and ema.averaging and ema.validate_raw:
            with ema.raw_weights(self):
                self._shared_step(batch, "val_raw")
        return self._shared_step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: D102
        return self._shared_step(batch, "test")

    def log_loss(self, loss: Tensor, stage: Stage, batch_size: int) -> None:
        """Logs the mean over the epoch's samples, and in training each step too.

        In evaluation it is exact over uneven batches and processes: sums are gathered, where
        Lightning would average the averages of processes.
        """
        if stage == "train":
            size: dict[str, Any] = {"batch_size": batch_size}
            self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, **size)
            self.log("train/loss_step", loss, on_step=True, on_epoch=False, prog_bar=True, **size)
        else:
            losses = {"val": self.val_loss, "val_raw": self.val_raw_loss, "test": self.test_loss}
            metric = losses[stage]
            metric.update(loss.detach(), batch_size)
            self.log(f"{stage}/loss", metric, on_step=False, on_epoch=True, batch_size=batch_size)

    def setup(self, stage: str) -> None:
        """Reads the data's facts and checks them against the network."""
        for module in self.modules():
            if isinstance(module, Metric):
                module.reset()  # What an evaluation left cannot be written to by a fit's.
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None and hasattr(datamodule, "info"):
            self.info = plain(datamodule.info, "info")
        self.adopt_data(self.info)
        self.check_data()
        if stage == "fit":
            apply_freezes(getattr(self.trainer, "callbacks", ()), self.network)
        if stage == "fit" and self.trainer.strategy.restore_checkpoint_after_setup:
            self.load_pretrained()  # Before such a strategy shards the network.
        if self.compile_network:
            self.network.compile()  # In place: keeps state-dict keys, unlike torch.compile(module).

    def configure_model(self) -> None:
        """Shards the network where the strategy asks for it."""
        if isinstance(getattr(self._trainer, "strategy", None), FullySharded):
            assert self.device_mesh is not None
            shard(self.network, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Named groups, scaled learning rate and its schedule, from `optimizer` and `schedule`.

        Loads `pretrained` first: a resumed run has its weights by now and needs no such file, and
        callbacks that start from the weights (EMA) come later.
        """
        self.load_pretrained()
        trainer = self.trainer
        samples = self.samples_per_step(trainer.world_size * trainer.accumulate_grad_batches)
        lr = scaled_lr(self.optimizer_config, samples)
        check_lr(lr, self.schedule_config)
        steps = trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise SuiteError(
                expected="a run of known length for the learning-rate schedule",
                found=f"max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}",
                where="trainer",
                cure="set trainer.max_epochs or trainer.max_steps",
            )
        trainer.fit_loop.setup_data()  # Counts batches where max_steps alone ends the run.
        if trainer.num_training_batches == float("inf"):
            raise SuiteError(
                expected="epochs of known length, for warm-up is counted in epochs",
                found="a stream without an end",
                where="trainer.limit_train_batches",
                cure="set it to the batches of a nominal epoch",
            )
        steps_per_epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        groups = parameter_groups(self, self.optimizer_config)
        optimizer = build_optimizer(groups, lr, self.optimizer_config)
        scheduler = build_scheduler(
            optimizer,
            lr=lr,
            steps=int(steps),
            epochs=steps / max(steps_per_epoch, 1),
            schedule=self.schedule_config,
        )
        self._settings = group_settings(optimizer)
        return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler=scheduler)

    def on_validation_start(self) -> None:
        """Evaluates `pretrained` where no checkpoint or fit has taken its place by now."""
        self.load_pretrained()

    def on_test_start(self) -> None:
        """Evaluates `pretrained` where no checkpoint has taken its place by now."""
        self.load_pretrained()

    def on_predict_start(self) -> None:
        """Predicts with `pretrained` where no checkpoint has taken its place by now."""
        self.load_pretrained()

    def on_train_start(self) -> None:
        """After a restore the configuration is the truth: what it changes is printed."""
        if self.trainer.ckpt_path is None:
            return
        (optimizer,), (entry,) = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        assert isinstance(entry.scheduler, torch.optim.lr_scheduler.LambdaLR)
        if changes := enforce_settings(optimizer, entry.scheduler, self._settings):
            rank_zero_warn("The config changes the optimiser:\n  " + "\n  ".join(changes))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the schema number, the constructor call and the data's facts, all plain data.

        With EMA, `state_dict` is the average, `current_model_state` the weights in training.
        """
        if (ema := self._ema) is not None and ema.averaging:
            average, weights = ema.roles(self)
            checkpoint["ema_updates"] = ema.updates
            checkpoint["current_model_state"] = {**checkpoint["state_dict"], **weights}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **average}
        checkpoint["schema"] = CHECKPOINT_SCHEMA
        if self._fitting:
            settle(checkpoint["loops"], self.trainer)
        checkpoint["info"] = self.info
        checkpoint["frozen"] = frozen_names(self.network)
        # The two private names are Lightning's: load_from_checkpoint rebuilds through them.
        checkpoint["hyper_parameters"] = {
            **self.init_call["init_args"],
            **self.constructor_call(),
            "_class_path": self.init_call["class_path"],
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model and recalls the facts stored with the weights."""
        self.adopt_data(checkpoint.get("info", {}))
        regrow(getattr(self._trainer, "callbacks", ()), self.network, checkpoint)
        check_checkpoint(checkpoint, self)
        self.pretrained = None  # Training on must not put the first weights back.
        known = {name: value for name, value in self.info.items() if value not in (None, [], "")}
        self.info = {**checkpoint["info"], **known}
        if self._fitting and "frozen" in checkpoint:
            check_frozen(checkpoint["frozen"], self.network, str(self.trainer.ckpt_path))
        if "ema_updates" in checkpoint:
            self._recall_average(checkpoint)

    def _recall_average(self, checkpoint: dict[str, Any]) -> None:
        """Training goes on from the raw weights, an evaluation has the average; EMA the other."""
        outside = checkpoint["current_model_state"]
        if self._fitting:
            outside, checkpoint["state_dict"] = checkpoint["state_dict"], outside
        if self._ema is not None:
            trainable = [name for name, p in self.named_parameters() if p.requires_grad]
            weights = {name: outside[name].clone() for name in trainable}
            self._ema.adopt(weights, checkpoint["ema_updates"], inside=not self._fitting)

    @property
    def _ema(self) -> EMA | None:
        callbacks = getattr(self._trainer, "callbacks", ())
        return next((callback for callback in callbacks if isinstance(callback, EMA)), None)

    @property
    def _fitting(self) -> bool:
        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING

    def samples_per_step(self, batches: int) -> int:
        """Samples behind an optimiser step, by which the learning rate is scaled.

        Args:
            batches: Processes times accumulated batches.
        """
        size: int = self.info.get("batch_size", self.optimizer_config.lr_scale_batch or 1)
        return size * batches

    def load_pretrained(self) -> None:
        """Loads `pretrained` if there is one left to load, and logs how well it matched."""
        if self.pretrained is None:
            return
        state = read_state_dict(self.pretrained, self.pretrained_weights)
        if callable(adapt := getattr(self.network, "adapt_state_dict", None)):
            state = adapt(state)
        report = load_weights(
            self.network, state, source=self.pretrained, allow_fresh=self.fresh_entries()
        )
        complete = self._fitting or not (report.missing or report.mismatched)
        # An evaluation with parts of random weights is seldom what one wants.
        (rank_zero_info if complete else rank_zero_warn)(f"pretrained weights: {report}")
        self.pretrained = None  # Once: a second fit goes on from the first.


def run_seed() -> int:
    """Seed of the run, where Lightning's `seed_everything` left it; 0 where it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def check_checkpoint(checkpoint: dict[str, Any], module: LightningModule) -> None:
    """Compares a checkpoint with a module before Lightning does, for a readable refusal.

    Raises:
        SuiteError: Not one of ours, of a newer schema, or of a differently built model.
    """
    trainer = module._trainer
    where = str(trainer.ckpt_path) if trainer is not None and trainer.ckpt_path else "checkpoint"
    schema = checkpoint.get("schema")
    if not isinstance(schema, int) or schema > CHECKPOINT_SCHEMA:
        foreign = not isinstance(schema, int)
        raise SuiteError(
            expected=f"a checkpoint of this suite, schema {CHECKPOINT_SCHEMA} or older",
            found="a foreign checkpoint" if foreign else f"schema {schema}",
            where=where,
            cure="give foreign weights as --model.init_args.pretrained FILE instead"
            if foreign
            else "update bimamba-suite",
        )
    workload = checkpoint["hyper_parameters"]["_class_path"].rpartition(".")[2]
    if workload != type(module).__name__:
        raise SuiteError(
            expected=f"a checkpoint of {type(module).__name__}",
            found=f"one of {workload}",
            where=where,
            cure=f"call {workload}.load_from_checkpoint, or use the config.yaml beside the file",
        )
    stored, own = checkpoint["state_dict"], module.state_dict()
    differences = [
        f"{key}: {_shape(stored.get(key))} in the file, {_shape(own.get(key))} in the model"
        for key in [*own, *(k for k in stored if k not in own)]
        if _shape(stored.get(key)) != _shape(own.get(key))
    ]
    if differences:
        raise SuiteError(
            expected=f"weights of the configured model ({len(own)} entries)",
            found=f"{len(differences)} differences, first {'; '.join(differences[:3])}",
            where=where,
            cure="use the config.yaml beside the checkpoint, or the checkpoint of this config",
        )


def _shape(tensor: Tensor | None) -> tuple[int, ...] | str:
    return "nothing" if tensor is None else tuple(tensor.shape)
