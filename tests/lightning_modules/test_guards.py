"""A non-finite step is stopped with the layer's name, or left out and counted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.guards import NonFiniteGuard
from lightning_modules.optimization import Optimizer, Schedule
from tests.lightning_modules.test_ema import Ones, Regression, run, weight


class Explosive(Recorded, nn.Module):
    """Its second layer gives NaN whenever it is told to."""

    def __init__(self, bad_calls: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.first = nn.Identity()
        self.second = Fuse()
        self.bad_calls, self.calls = bad_calls, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.second.lit = self.calls in self.bad_calls
            self.calls += 1
        out: Tensor = self.second(self.first((self.weight - 1).square().sum() * x.mean()))
        return out


class Fuse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lit = False

    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan") if self.lit else x


def explosive(*bad_calls: int) -> Regression:
    optimizer = Optimizer(lr=0.1, lr_scale_batch=None)
    return Regression(Explosive(bad_calls), optimizer, Schedule(warmup_epochs=0, min_lr=0.01))


def test_stop_names_layer_and_step(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        run(tmp_path, NonFiniteGuard()).fit(explosive(5), Ones())
    said = str(caught.value)
    assert "layer network.second" in said
    assert "epoch 1, optimiser step 5" in said
    assert "mode: skip" in said


def test_skip_leaves_weights_and_moments_as_they_were_and_counts(tmp_path: Path) -> None:
    class Steps(Callback):
        def __init__(self) -> None:
            self.weights: list[Tensor] = []

        def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
            self.weights.append(weight(module))

    seen, guard, module = Steps(), NonFiniteGuard("skip"), explosive(2, 3)
    with pytest.warns(UserWarning, match="step 2 skipped: .*network.second"):
        trainer = run(tmp_path, guard, seen)
        trainer.fit(module, Ones())
    assert guard.skipped == 2
    assert torch.equal(seen.weights[1], seen.weights[3])
    assert not torch.equal(seen.weights[3], seen.weights[4])
    assert weight(module).isfinite().all()
    assert float(trainer.callback_metrics["train/skipped_steps"]) == 2


def test_zero_takes_the_step_with_the_finite_part_of_the_gradient(tmp_path: Path) -> None:
    class HalfBad(Explosive):
        def forward(self, x: Tensor) -> Tensor:
            bad = self.training and torch.is_grad_enabled() and self.calls == 2
            scale = torch.tensor([float("inf") if bad else 1.0, 1.0])
            self.calls += self.training and torch.is_grad_enabled()
            return (self.weight * scale).sum() * x.mean()

    class Gradients(Callback):
        def __init__(self) -> None:
            self.seen: list[list[float]] = []

        def on_before_optimizer_step(self, trainer: Trainer, module: Any, *_: Any) -> None:
            self.seen.append(module.network.weight.grad.tolist())

    optimizer = Optimizer(lr=0.1, lr_scale_batch=None)
    module = Regression(HalfBad(), optimizer, Schedule(warmup_epochs=0, min_lr=0.01))
    guard, seen = NonFiniteGuard("zero"), Gradients()
    with pytest.warns(UserWarning, match="step 2 mended: .* network.weight"):
        trainer = run(tmp_path, guard, seen)
        trainer.fit(module, Ones())
    assert seen.seen[1:4] == [[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]
    assert (guard.mended, guard.skipped) == (1, 0)
    assert float(trainer.callback_metrics["train/mended_steps"]) == 1


def test_skipping_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="non-finite"):
        run(tmp_path, NonFiniteGuard("skip", patience=2)).fit(explosive(*range(8)), Ones())


def test_finite_runs_are_not_touched(tmp_path: Path) -> None:
    weights = []
    for guards in ([], [NonFiniteGuard()]):
        module = explosive()
        run(tmp_path, *guards).fit(module, Ones())
        weights.append(weight(module))
    assert torch.equal(*weights)


def test_the_count_survives_a_checkpoint() -> None:
    guard, other = NonFiniteGuard("skip"), NonFiniteGuard("skip")
    guard.skipped, guard.mended = 3, 4
    other.load_state_dict(guard.state_dict())
    assert (other.skipped, other.mended) == (3, 4)
    other.load_state_dict({"skipped": 5})  # Written before steps could be mended.
    assert (other.skipped, other.mended) == (5, 0)
