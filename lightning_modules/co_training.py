"""Several workloads train one trunk together, each with a head of its own.

    loss = sum over heads of weight * that workload's loss

A step takes a batch of every workload (`CoTrainingDataModule`); one optimiser, one average and one
checkpoint hold everything. Metrics are those of the workloads, with the head's name after the
stage: `val/pose/p1`.

Batch: by head, the batch of its workload; in evaluation None for a head whose data has ended.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import instantiate_module
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.recorded import plain
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.trunk import JointNetwork
from lightning_modules.workload import Batch, Stage, Workload


class CoTraining(Workload):
    """Trains a trunk on several workloads at once.

    Args:
        trunk: Shared network, tokens (B, L, E) to tokens, such as `MambaTrunk`.
        heads: Workloads by name, each with a network that borrows the trunk, such as
            `TrunkClassifier`. Their own optimisers, schedules and pretrained weights must be left
            out: those given here serve all.
        weights: Factor of each head's loss; those not named have 1.
        optimizer: Optimiser and learning-rate rule.
        schedule: Warm-up and decay.
        pretrained: Weights of trunk and heads to start from.
        pretrained_weights: `model` or its moving average `model_ema`, where the file holds both.
        fresh: Patterns of network entries that `pretrained` need not have, such as `heads.pose.*`.
        compile_network: Compile the networks in place with torch.compile.
    """

    monitor = "val/loss"
    mode = "min"

    def __init__(
        self,
        trunk: nn.Module,
        heads: dict[str, Workload],
        weights: dict[str, float] | None = None,
        optimizer: Optimizer = Optimizer(lr_scale_batch=None),
        schedule: Schedule = Schedule(),
        pretrained: str | None = None,
        pretrained_weights: Literal["model", "model_ema"] = "model",
        fresh: tuple[str, ...] = (),
        compile_network: bool = False,
    ) -> None:
        _check(heads, weights or {})
        networks = {name: head.network for name, head in heads.items()}
        network = JointNetwork(trunk, networks)
        super().__init__(
            network, optimizer, schedule, pretrained, pretrained_weights, compile_network
        )
        self.weights = {name: (weights or {}).get(name, 1.0) for name in heads}
        self.fresh = tuple(fresh)
        self.heads = nn.ModuleDict()
        for name, head in heads.items():
            # Owned by the joint network: a head only looks at its part.
            del head._modules["network"]
            head.__dict__["network"] = networks[name]
            self.heads[name] = head
        self.units = {  # type: ignore[misc]
            f"{name}/{metric}": unit
            for name, head in heads.items()
            for metric, unit in head.units.items()
        }

    @property
    def workloads(self) -> dict[str, Workload]:
        """The heads by name."""
        return cast("dict[str, Workload]", dict(self.heads.items()))

    def standalone(self, name: str) -> Workload:
        """A head as a workload of its own, with a copy of the trunk: for tests, files, export.

        Args:
            name: Of the head.

        Raises:
            SuiteError: There is none of that name.
        """
        if name not in self.heads:
            raise _unknown(name, self.heads, "CoTraining.standalone")
        joint, head = cast(JointNetwork, self.network), self.workloads[name]
        call = self.constructor_call()
        arguments = dict(call["heads"][name]["init_args"])
        network = arguments["network"]
        borrowed = {**network["init_args"], "trunk": call["trunk"]}
        arguments["network"] = {**network, "init_args": borrowed}
        arguments["_class_path"] = call["heads"][name]["class_path"]
        alone: Workload = instantiate_module(Workload, arguments)
        alone.info = dict(head.info)
        alone.adopt_data(alone.info)
        trunk = {f"network.trunk.{k}": v for k, v in joint.trunk.state_dict().items()}
        own = {f"network.{k}": v for k, v in head.network.state_dict().items()}
        alone.load_state_dict(trunk | own | head.state_dict())
        return alone

    def setup(self, stage: str) -> None:
        """Gives every head the trainer and a logger that puts its name into the metrics'.

        Raises:
            SuiteError: Predictions are asked for: heads predict different things.
        """
        if stage == "predict":
            raise SuiteError(
                expected="one workload to predict with",
                found=f"{', '.join(self.workloads)}",
                where="bimamba predict with CoTraining",
                cure="configure the head by itself, its network with a `trunk`, and give this "
                "checkpoint as --model.init_args.pretrained",
            )
        for name, head in self.workloads.items():
            head.trainer = self.trainer
            head.log = partial(self._log_of, name)  # type: ignore[method-assign]
        super().setup(stage)

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Hands every head the facts about its data.

        Raises:
            SuiteError: Data and heads have other names.
        """
        facts = info.get("heads") or {}
        if facts and facts.keys() != self.workloads.keys():
            raise SuiteError(
                expected=f"data for {', '.join(self.workloads)}",
                found=f"{', '.join(facts)}",
                where="data.init_args.heads",
                cure="give each head of the model data under its own name",
            )
        for name, head in self.workloads.items():
            if name in facts:
                head.info = dict(facts[name])
                head.adopt_data(head.info)

    def check_data(self) -> None:
        """Each head looks at its own data."""
        for head in self.workloads.values():
            head.check_data()

    def fresh_entries(self) -> tuple[str, ...]:
        """What `fresh` names."""
        return self.fresh

    def configure_callbacks(self) -> list[Callback]:
        """None: tables and pictures of a head come with `standalone`."""
        return []

    def constructor_call(self) -> dict[str, Any]:
        """Trunk and heads as they are now."""
        joint = cast(JointNetwork, self.network)
        heads = {
            name: {
                **head.init_call,
                "init_args": {**head.init_call["init_args"], "network": plain(head.network, name)},
            }
            for name, head in self.workloads.items()
        }
        return {"trunk": plain(joint.trunk, "trunk"), "heads": heads}

    def forward(self, head: str, *inputs: Any, **options: Any) -> Any:
        """What a head makes of its inputs.

        Args:
            head: Its name.
            *inputs: As its workload takes them.
            **options: The same.
        """
        return self.workloads[head](*inputs, **options)

    def on_fit_start(self) -> None:
        """The heads' own beginning."""
        self._each("on_fit_start")

    def on_train_epoch_start(self) -> None:
        """The heads' own beginning of an epoch."""
        self._each("on_train_epoch_start")

    def on_train_epoch_end(self) -> None:
        """The heads' own end of an epoch."""
        self._each("on_train_epoch_end")

    def on_validation_epoch_end(self) -> None:
        """Logs the sum that decides which checkpoint is best, then what the heads add."""
        for stage in ("val", "val_raw"):
            self._log_sum(stage)
        self._each("on_validation_epoch_end")

    def on_test_epoch_end(self) -> None:
        """Logs the sum, then what the heads add."""
        self._log_sum("test")
        self._each("on_test_epoch_end")

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        losses: list[Tensor] = []
        samples = 0
        for name, head in self.workloads.items():
            if batch.get(name) is None:
                continue
            losses.append(self.weights[name] * head._shared_step(batch[name], stage)["loss"])
            samples += int(self.info["heads"][name]["batch_size"])
        loss = torch.stack(losses).sum()
        if stage == "train":
            self.log_loss(loss, stage, samples)
        return {"loss": loss}

    def _log_of(self, head: str, name: str, value: Any, **options: Any) -> None:
        stage, _, metric = name.partition("/")
        self.log(f"{stage}/{head}/{metric}", value, **options)

    def _log_sum(self, stage: str) -> None:
        losses = {n: getattr(head, f"{stage}_loss") for n, head in self.workloads.items()}
        if all(metric.update_called for metric in losses.values()):
            total = sum(self.weights[name] * metric.compute() for name, metric in losses.items())
            self.log(f"{stage}/loss", total, prog_bar=stage == "val")

    def _each(self, hook: str) -> None:
        for head in self.workloads.values():
            function: Callable[[], None] = getattr(head, hook)
            function()


def _check(heads: Mapping[str, Workload], weights: Mapping[str, float]) -> None:
    if len(heads) < 2:
        raise SuiteError(
            expected="two heads or more",
            found=f"{', '.join(heads) or 'none'}",
            where="model.init_args.heads",
            cure="train a single workload by itself",
        )
    for name in weights:
        if name not in heads:
            raise _unknown(name, heads, "model.init_args.weights")
    for name, head in heads.items():
        given = head.init_call["init_args"].get("pretrained")
        if given is not None:
            raise SuiteError(
                expected="pretrained weights of all networks together",
                found=f"{given} for {name} alone",
                where=f"model.init_args.heads.{name}.init_args.pretrained",
                cure="give them as model.init_args.pretrained, with `fresh` for what they lack",
            )


def _unknown(name: str, heads: Any, where: str) -> SuiteError:
    return SuiteError(
        expected=f"one of the heads {', '.join(heads)}",
        found=name,
        where=where,
        cure="use a name under model.init_args.heads",
    )
