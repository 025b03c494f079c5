"""The table of promises of the moving average, each with the run that would break it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.ema import EMA
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.workload import Batch, Stage, Workload
from tests.conftest import ROOT


class Scalar(Recorded, nn.Module):
    """One weight, a frozen part, and buffers of every kind."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), start))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("table", torch.linspace(0.1, 0.7, 7))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x).mean() * 0 + (self.weight - 1).square().sum() * x.mean()
        return out


class Regression(Workload):
    """Pulls the weight to one."""

    monitor = "val/loss"
    mode = "min"

    def __init__(
        self, network: nn.Module, optimizer: Optimizer, schedule: Schedule, fails_at: int = -1
    ) -> None:
        super().__init__(network, optimizer, schedule)
        self.fails_at = fails_at

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        if stage == "val" and self.trainer.global_step == self.fails_at:
            raise RuntimeError("power cut")
        loss = self.network(batch["x"])
        self.log_loss(loss, stage, len(batch["x"]))
        return {"loss": loss}


class Ones(LightningDataModule):
    def _loader(self, count: int) -> DataLoader[dict[str, Tensor]]:
        return DataLoader([{"x": torch.ones(1)} for _ in range(count)], batch_size=2)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader(8)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader(2)

    test_dataloader = val_dataloader


class Weights(Callback):
    """Keeps the weight after each optimiser step and during each validation."""

    def __init__(self) -> None:
        self.trained: list[Tensor] = []
        self.validated: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.trained.append(weight(module))

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.validated.append(weight(module))


def weight(module: LightningModule) -> Tensor:
    return module.get_parameter("network.weight").detach().clone()


def regression(**options: Any) -> Regression:
    optimizer = Optimizer("momentum", lr=0.1, momentum=0.0, weight_decay=0.0, lr_scale_batch=None)
    schedule = Schedule(warmup_epochs=0, min_lr=0.1, allow_rising=True)
    return Regression(Scalar(), optimizer, schedule, **options)


def run(tmp_path: Path, *callbacks: Callback, **options: Any) -> Trainer:
    standard = {"accelerator": "cpu", "max_epochs": 2, "num_sanity_val_steps": 0}
    given: dict[str, Any] = {**standard, **options}
    return Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **given,
    )


def averages(trained: list[Tensor], start: Tensor, decays: Iterator[float]) -> list[Tensor]:
    found, average = [], start
    for value, decay in zip(trained, decays, strict=False):
        average = decay * average + (1 - decay) * value
        found.append(average)
    return found


def warm(decay: float) -> Iterator[float]:
    t = 0
    while True:
        yield min(decay, (1 + t) / (10 + t))
        t += 1


def cold(decay: float) -> Iterator[float]:
    while True:
        yield decay


def test_the_average_follows_the_published_sequence(golden: Path) -> None:
    case = json.loads((golden / "vision" / "ema.json").read_text())
    module, ema = regression(), EMA(decay=case["decay"], warmup=False)
    module.network.weight = nn.Parameter(torch.tensor(case["init"]))
    ema._start(module)
    for weights, expected in zip(case["weights"], case["ema_after_each_update"], strict=True):
        with torch.no_grad():
            module.get_parameter("network.weight").copy_(torch.tensor(weights))
        ema._update(module)
        average, raw = ema.roles(module)
        assert torch.allclose(average["network.weight"], torch.tensor(expected), atol=1e-6)
        assert torch.equal(raw["network.weight"], torch.tensor(weights))


def test_the_average_of_constant_weights_is_constant() -> None:
    module, ema = regression(), EMA(decay=0.9999)
    before = {name: p.clone() for name, p in module.named_parameters()}
    ema._start(module)
    for _ in range(100):
        ema._update(module)
    for name, value in ema.roles(module)[0].items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(("warmup", "decays"), [(True, warm), (False, cold)])
def test_validation_sees_the_closed_form_average_and_training_goes_on_raw(
    tmp_path: Path, warmup: bool, decays: Callable[[float], Iterator[float]]
) -> None:
    seen, module = Weights(), regression()
    start = weight(module)
    run(tmp_path, EMA(decay=0.5, warmup=warmup), seen).fit(module, Ones())
    expected = averages(seen.trained, start, decays(0.5))
    assert len(seen.trained) == 8
    assert torch.allclose(seen.validated[0], expected[3], atol=1e-7)
    assert torch.allclose(seen.validated[1], expected[7], atol=1e-7)
    # Plain gradient descent on (w - 1)^2 at rate 0.1 contracts by 0.8 a step, undisturbed.
    assert torch.allclose(seen.trained[-1], torch.full((2,), 1 - 0.8**8), atol=1e-6)
    assert torch.equal(weight(module), seen.trained[-1])


def test_before_the_first_average_the_weights_themselves_are_validated(tmp_path: Path) -> None:
    seen, module = Weights(), regression()
    run(tmp_path, EMA(decay=0.9, start_step=6), seen).fit(module, Ones())
    assert torch.equal(seen.validated[0], seen.trained[3])
    expected = averages(seen.trained[6:], seen.trained[5], warm(0.9))
    assert torch.allclose(seen.validated[1], expected[-1], atol=1e-7)


def test_accumulated_batches_are_no_updates(tmp_path: Path) -> None:
    ema = EMA()
    run(tmp_path, ema, accumulate_grad_batches=2).fit(regression(), Ones())
    assert ema.updates == 4


def test_buffers_and_frozen_parts_are_used_as_they_are(tmp_path: Path) -> None:
    module, ema = regression(), EMA(decay=0.9)
    table = module.network.table.clone()
    trainer = run(tmp_path, ema)
    trainer.fit(module, Ones())
    assert "network.frozen" not in ema.roles(module)[0]
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    for state in (content["state_dict"], content["current_model_state"]):
        assert int(state["network.norm.num_batches_tracked"]) == 8
        assert torch.equal(state["network.table"], table)


def test_metrics_of_both_weights_stand_side_by_side(tmp_path: Path) -> None:
    trainer = run(tmp_path, EMA(decay=0.9))
    trainer.fit(regression(), Ones())
    raw, averaged = (float(trainer.callback_metrics[f"{s}/loss"]) for s in ("val_raw", "val"))
    assert raw == pytest.approx(2 * 0.8**16, rel=1e-4)
    assert averaged > raw
    alone = run(tmp_path, EMA(decay=0.9, validate_raw=False))
    alone.fit(regression(), Ones())
    assert "val_raw/loss" not in alone.callback_metrics


def test_a_resumed_average_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, ema = regression(), EMA(decay=0.9)
    run(tmp_path, ema, max_epochs=4).fit(whole, Ones())
    half = run(tmp_path, EMA(decay=0.9), max_epochs=2)
    half.fit(regression(), Ones())
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = regression(), EMA(decay=0.9)
    run(tmp_path, again, max_epochs=4).fit(resumed, Ones(), ckpt_path=tmp_path / "half.ckpt")
    assert again.updates == ema.updates == 16
    for one, other in zip(ema.roles(whole), again.roles(resumed), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_without_averaging_goes_on_from_the_weights_in_training(tmp_path: Path) -> None:
    seen, half = Weights(), run(tmp_path, EMA(decay=0.9), max_epochs=2)
    half.fit(regression(), Ones())
    half.save_checkpoint(tmp_path / "half.ckpt")
    trainer = run(tmp_path, seen, max_epochs=3)
    trainer.fit(regression(), Ones(), ckpt_path=tmp_path / "half.ckpt")
    assert torch.allclose(seen.trained[0], torch.full((2,), 1 - 0.8**9), atol=1e-6)


@pytest.mark.parametrize("moment", ["exception", "checkpoint"])
def test_a_checkpoint_taken_during_validation_keeps_the_roles(tmp_path: Path, moment: str) -> None:
    class Take(Callback):
        def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 8:
                trainer.save_checkpoint(tmp_path / "taken.ckpt")

    seen, ema = Weights(), EMA(decay=0.9)
    if moment == "exception":
        keep = ModelCheckpoint(tmp_path, "taken", save_on_exception=True)
        keep._enable_version_counter = False
        module = regression(fails_at=8)
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path, ema, seen, keep).fit(module, Ones())
        assert torch.equal(weight(module), seen.trained[-1])
    else:
        run(tmp_path, ema, seen, Take()).fit(regression(), Ones())
    content = torch.load(tmp_path / "taken.ckpt", weights_only=True)
    assert content["global_step"] == 8
    expected = averages(seen.trained, torch.zeros(2), warm(0.9))[7]
    assert torch.allclose(content["state_dict"]["network.weight"], expected, atol=1e-7)
    assert torch.equal(content["current_model_state"]["network.weight"], seen.trained[7])


def test_testing_a_checkpoint_uses_the_average(tmp_path: Path) -> None:
    trainer = run(tmp_path, EMA(decay=0.9))
    trainer.fit(regression(), Ones())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    plain = run(tmp_path)
    plain.test(regression(), Ones(), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    averaged = float(trainer.callback_metrics["val/loss"])
    assert float(plain.callback_metrics["test/loss"]) == pytest.approx(averaged, rel=1e-5)
    assert averaged != pytest.approx(float(trainer.callback_metrics["val_raw/loss"]))


def test_validating_a_checkpoint_reports_both_and_leaves_the_average(tmp_path: Path) -> None:
    trainer = run(tmp_path, EMA(decay=0.9))
    trainer.fit(regression(), Ones())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    module, ema = regression(), EMA(decay=0.9)
    again = run(tmp_path, ema)
    again.validate(module, Ones(), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    for key in ("val/loss", "val_raw/loss"):
        assert torch.equal(again.callback_metrics[key], trainer.callback_metrics[key]), key
    stored = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(weight(module), stored["network.weight"])
    # The same objects may train afterwards: from what the module holds, with a new average.
    run(tmp_path, ema).fit(module, Ones())
    assert ema.updates == 8
    assert not torch.equal(*(role["network.weight"] for role in ema.roles(module)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second kind of memory")
def test_an_average_on_the_cpu_is_the_same_average(tmp_path: Path) -> None:
    found = []
    for device in (None, "cpu"):
        ema, module = EMA(decay=0.9, device=device), regression()
        trainer = run(tmp_path, ema, accelerator="gpu", devices=1)
        trainer.fit(module, Ones())
        average, raw = ema.roles(module)
        assert average["network.weight"].device.type == (device or "cuda")
        assert raw["network.weight"].device.type == "cuda"
        found.append((average["network.weight"].cpu(), trainer.callback_metrics["val/loss"].cpu()))
    assert all(map(torch.equal, *found))


def test_sharded_strategies_are_refused_with_the_cure(tmp_path: Path) -> None:
    from lightning.pytorch.strategies import ModelParallelStrategy

    trainer = run(tmp_path)
    trainer.strategy.__class__ = ModelParallelStrategy
    with pytest.raises(SuiteError, match="strategy: ddp"):
        EMA().setup(trainer, regression(), "fit")


def test_a_decay_outside_its_range_is_refused() -> None:
    with pytest.raises(SuiteError, match=r"decay in \[0, 1\)"):
        EMA(decay=1.0)


@pytest.mark.slow
def test_two_processes_hold_the_same_average(tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    script = [sys.executable, "-m", "tests.lightning_modules.ema_on_two_processes", str(answer)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert answer.read_text() == "2 True 4"
