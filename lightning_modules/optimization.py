"""Optimiser groups, the learning-rate rule and its schedule: the same for every workload.

Rule (hustvl/Vim, DeiT): lr = `lr` * images per optimiser step / `lr_scale_batch`; unlike upstream,
the images count all processes and accumulated batches. Schedule: linear warm-up, then a cosine or
another decay.
"""

import difflib
import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import nn

from blocks.errors import SuiteError
from lightning_modules.layer_decay import layer_rates

# State-space parameters of every mixer in blocks; their 2-D members look like weights but are not.
_SSM_NAMES = {"A_log", "A_b_log", "A_logs", "D", "D_b", "Ds", "dt_bias", "dt_projs_bias"}


@dataclass(frozen=True)
class Optimizer:
    """Optimiser and its learning-rate rule.

    Args:
        name: Any optimiser of timm (`adamw`, `sgd`, `lamb`, `lion`, ...).
        lr: Base learning rate, for `lr_scale_batch` samples a step.
        weight_decay: Decay of the weights; norms, biases, embeddings and SSM parameters have none.
        betas: Moment coefficients of Adam-like optimisers; `null` = the optimiser's own.
        eps: Denominator term of Adam-like optimisers; `null` = the optimiser's own.
        momentum: Momentum of SGD-like optimisers.
        lr_scale_batch: Samples a step that `lr` is meant for; `null` = use `lr` as it is.
        decay_ssm_params: Decay the 2-D `A_log` too, as the published Vim and VMamba runs did.
        decay_everything: Decay every parameter, norms and biases too, as plain AdamW does.
        layer_decay: Factor of the learning rate from each layer to the one before it, in (0, 1];
            the head has the full rate. For fine-tuning (0.65 to 0.9); `null` = equal rates.
        lr_factors: Factors of the learning rate by pattern of the parameters' names, such as
            {"network.*": 0.3}; the first pattern that fits counts.
    """

    name: str = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] | None = None
    eps: float | None = None
    momentum: float = 0.9
    lr_scale_batch: int | None = 512
    decay_ssm_params: bool = False
    decay_everything: bool = False
    layer_decay: float | None = None
    lr_factors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up and decay of the learning rate.

    Args:
        shape: `cosine` to `min_lr`; `poly`, to `min_lr` as a power of the time that is left;
            `exponential`, times `gamma` every epoch; `milestones`, times `gamma` at each of them;
            `constant`.
        interval: Change the rate every `step` or every `epoch`.
        warmup_epochs: Epochs of linear warm-up.
        warmup_prefix: Whether the cosine begins after the warm-up (MzeroMiko/VMamba); else it runs
            on below it (timm's own default, hustvl/Vim).
        warmup_lr: Rate at the very start, not scaled by the batch.
        min_lr: Rate at the end of a cosine or `poly`, not scaled by the batch.
        power: Of `poly`.
        gamma: Factor of `exponential` and `milestones`.
        milestones: Epochs, ascending.
        upstream_epoch_lag: Run one epoch late, as hustvl/Vim does (with `interval: epoch`).
        allow_rising: Accept a scaled rate below `min_lr`, so that the cosine rises.
    """

    shape: Literal["cosine", "poly", "exponential", "milestones", "constant"] = "cosine"
    interval: Literal["step", "epoch"] = "step"
    warmup_epochs: float = 5.0
    warmup_prefix: bool = False
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    power: float = 0.9
    gamma: float = 0.1
    milestones: tuple[float, ...] = ()
    upstream_epoch_lag: bool = False
    allow_rising: bool = False


def scaled_lr(optimizer: Optimizer, samples_per_step: int) -> float:
    """Learning rate for a global batch.

    Args:
        optimizer: Base rate and the batch it is meant for.
        samples_per_step: Batch per process * processes * accumulated batches.
    """
    if optimizer.lr_scale_batch is None:
        return optimizer.lr
    return optimizer.lr * samples_per_step / optimizer.lr_scale_batch


def learning_rate(epoch: float, *, lr: float, epochs: float, schedule: Schedule) -> float:
    """Learning rate at a time counted in epochs, fractions included (timm's formulas).

    Args:
        epoch: Time since the start, in epochs.
        lr: Peak rate.
        epochs: Length of the run.
        schedule: Shape, warm-up and end values.
    """
    warmup = schedule.warmup_epochs
    if schedule.upstream_epoch_lag:
        epoch = max(epoch - 1, 0)
    if epoch < warmup:
        return schedule.warmup_lr + epoch * (lr - schedule.warmup_lr) / warmup
    match schedule.shape:
        case "constant":
            return lr
        case "exponential":
            return lr * math.pow(schedule.gamma, epoch)
        case "milestones":
            passed = sum(epoch >= mark for mark in schedule.milestones)
            return lr * math.pow(schedule.gamma, passed)
    if schedule.warmup_prefix:
        epoch, epochs = epoch - warmup, epochs - warmup
    progress = min(epoch / max(epochs, 1e-9), 1.0)
    if schedule.shape == "poly":
        return schedule.min_lr + (lr - schedule.min_lr) * math.pow(1 - progress, schedule.power)
    return schedule.min_lr + (lr - schedule.min_lr) / 2 * (1 + math.cos(math.pi * progress))


def check_lr(lr: float, schedule: Schedule) -> None:
    """Warns about a flat cosine and refuses a rising one (the trap of small single-GPU batches).

    Raises:
        SuiteError: The scaled rate lies below `min_lr`.
    """
    if schedule.shape != "cosine" or schedule.allow_rising:
        return
    if lr < schedule.min_lr:
        raise SuiteError(
            expected=f"a learning rate above schedule.min_lr = {schedule.min_lr:g}",
            found=f"{lr:.3g} after scaling by the batch, so the cosine would rise",
            where="model.init_args.optimizer.lr",
            cure="raise lr or the batch, lower min_lr, set lr_scale_batch: null, or allow_rising",
        )
    if lr <= 2 * schedule.min_lr:
        rank_zero_warn(
            f"The scaled learning rate {lr:.3g} is within twice min_lr {schedule.min_lr:g}: the "
            "cosine is nearly flat. Raise optimizer.lr or lower schedule.min_lr."
        )


def parameter_groups(network: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Splits the trainable parameters into the named groups `decay` and `no_decay`.

    No decay: 1-D parameters, biases, what the network's or a block's `no_weight_decay()` names,
    and the SSM parameters. With `decay_ssm_params` the 2-D ones among the latter decay. With
    `layer_decay` each layer has its own two groups, `layer_0_decay` and so on.

    Args:
        network: Any module; with `layer_decay`, one with layers, see `layer_rates`.
        optimizer: Weight decay, layer decay and the choice about SSM parameters.

    Returns:
        Groups with `name`, `params`, `weight_decay` and, with `layer_decay`, `lr_scale`; those
        without parameters are left out.
    """
    listed = set(_listed_without_decay(network))
    rates = None if optimizer.layer_decay is None else layer_rates(network, optimizer.layer_decay)
    factors = _Factors(optimizer.lr_factors)
    groups: dict[tuple[int, float, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        ssm = name.rpartition(".")[2] in _SSM_NAMES
        plain = parameter.ndim <= 1 or name.endswith(".bias")
        exempt = plain or (not optimizer.decay_ssm_params if ssm else name in listed)
        exempt = exempt and not optimizer.decay_everything
        layer, rate = rates[name] if rates else (0, 1.0)
        factor = factors.of(name)
        key = layer, factor, exempt
        if key not in groups:
            prefix = f"layer_{layer}_" * (rates is not None) + f"times_{factor:g}_" * (factor != 1)
            groups[key] = {
                "name": prefix + "no_" * exempt + "decay",
                "params": [],
                "weight_decay": 0.0 if exempt else optimizer.weight_decay,
            }
            if rates is not None or factor != 1:
                groups[key]["lr_scale"] = rate * factor
        groups[key]["params"].append(parameter)
    factors.check(name for name, _ in network.named_parameters())
    return [groups[key] for key in sorted(groups)]


class _Factors:
    """Factors of the learning rate by pattern, see `Optimizer.lr_factors`."""

    def __init__(self, factors: Mapping[str, float]) -> None:
        self.factors = factors

    def of(self, name: str) -> float:
        """The factor of a parameter."""
        fits = (f for pattern, f in self.factors.items() if fnmatch.fnmatchcase(name, pattern))
        return next(fits, 1.0)

    def check(self, names: Iterable[str]) -> None:
        """Raises a SuiteError for a pattern that fits no parameter."""
        known = list(names)
        for pattern in self.factors:
            if not fnmatch.filter(known, pattern):
                near = difflib.get_close_matches(pattern, known, 1, cutoff=0)
                raise SuiteError(
                    expected="patterns of parameter names",
                    found=f"{pattern}, which fits none",
                    where="model.init_args.optimizer.lr_factors",
                    cure=f"names look like {near[0] if near else 'network.head.weight'}; "
                    "* stands for any letters",
                )


def build_optimizer(groups: Iterable[dict[str, Any]], lr: float, optimizer: Optimizer) -> Any:
    """Makes the optimiser through timm's factory.

    Args:
        groups: From `parameter_groups`.
        lr: Learning rate; a group with `lr_scale` has that share of it.
        optimizer: Name and options.

    Raises:
        SuiteError: timm has no optimiser of that name.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    if optimizer.name not in list_optimizers():
        near = difflib.get_close_matches(optimizer.name, list_optimizers(), 3)
        raise SuiteError(
            expected="the name of a timm optimiser",
            found=optimizer.name,
            where="model.init_args.optimizer.name",
            cure=f"use {' or '.join(near) or 'adamw, sgd, lamb, ...'}",
        )
    groups = list(groups)
    options: dict[str, Any] = {"betas": optimizer.betas, "eps": optimizer.eps}
    # torch's own way there is an operation at a time: three times slower for a few million weights.
    on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
    options["fused"] = True if on_cpu and optimizer.name in ("adam", "adamw") else None
    made = create_optimizer_v2(
        [{"lr": lr * group.get("lr_scale", 1.0), **group} for group in groups],
        opt=optimizer.name,
        lr=lr,
        weight_decay=optimizer.weight_decay,
        momentum=optimizer.momentum,
        **{name: value for name, value in options.items() if value is not None},
    )
    # Scaling and clipping stay where they are for all others: outside, and in that order.
    made._step_supports_amp_scaling = False
    made.register_load_state_dict_pre_hook(_check_groups)
    return made


def build_scheduler(
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    steps: int,
    epochs: float,
    schedule: Schedule,
) -> LRSchedulerConfigType:
    """Lightning's scheduler entry for `learning_rate`.

    Args:
        optimizer: Its groups follow the same curve, each from its own rate.
        lr: Peak rate.
        steps: Optimiser steps of the whole run.
        epochs: Epochs of the whole run.
        schedule: Shape of the curve.
    """

    def factor(tick: int) -> float:
        epoch = tick if schedule.interval == "epoch" else tick * epochs / max(steps, 1)
        return learning_rate(epoch, lr=lr, epochs=epochs, schedule=schedule) / lr

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return LRSchedulerConfigType(scheduler=scheduler, interval=schedule.interval, name="lr")


def group_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What a configuration decides about each parameter group: all but the parameters."""
    groups = optimizer.param_groups
    return [{key: group[key] for key in group if key not in {"params", "lr"}} for group in groups]


def enforce_settings(
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    settings: list[dict[str, Any]],
) -> list[str]:
    """Writes the configured settings over those of a restored optimiser and its schedule.

    Args:
        optimizer: Restored; its moments stay.
        scheduler: Restored; the rate follows its present curve at the restored step.
        settings: `group_settings` before the restore.

    Returns:
        A line for each setting that the checkpoint had otherwise.
    """
    changes: dict[str, list[str]] = {}
    for group, wanted in zip(optimizer.param_groups, settings, strict=True):
        for key, value in wanted.items():
            old = group.get(key)
            if key != "fused" and (list(old) if isinstance(old, tuple) else old) != (
                list(value) if isinstance(value, tuple) else value
            ):
                name = {"initial_lr": "lr"}.get(key, key)
                changes.setdefault(name, []).append(
                    f"{wanted['name']}.{name}: {old} in the checkpoint, {value} in the config"
                )
            group[key] = value
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    rates = [
        base * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
    return [line for lines in changes.values() for line in _shortened(lines)]


def _shortened(lines: list[str]) -> list[str]:
    """Of one change in the groups of many layers, the first and the last."""
    if len(lines) <= 4:
        return lines
    return [lines[0], f"... and so on for {len(lines) - 2} groups", lines[-1]]


def _check_groups(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Refuses the moments of other groups, which torch would hand to the wrong parameters."""
    stored, own = (
        [str(group["name"]) for group in groups if "name" in group]
        for groups in (state["param_groups"], optimizer.param_groups)
    )
    if stored and stored != own:
        raise SuiteError(
            expected=f"the {len(stored)} parameter groups of the checkpoint, {_ends(stored)}",
            found=f"{len(own)}, {_ends(own)}",
            where="model.init_args.optimizer",
            cure="resume with the layer_decay and the frozen parameters of the run, or begin a new "
            "one from its weights: --model.init_args.pretrained CHECKPOINT",
        )


def _ends(names: list[str]) -> str:
    return " .. ".join(names if len(names) < 3 else (names[0], names[-1]))


def _listed_without_decay(network: nn.Module) -> Iterator[str]:
    for path, module in network.named_modules():
        if callable(names := getattr(module, "no_weight_decay", None)):
            yield from (f"{path}.{name}".lstrip(".") for name in names())
