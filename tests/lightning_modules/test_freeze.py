"""Frozen parameters: untouched, without moments or average, the same after a restart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.ema import EMA
from lightning_modules.freeze import Freeze, frozen_names
from lightning_modules.optimization import Optimizer, Schedule
from tests.lightning_modules.test_ema import Ones, Regression, run


class Net(Recorded, nn.Module):
    """A stem with a batch norm, and a head that data may replace."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4))
        self.plain = nn.BatchNorm1d(4, affine=False)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.linspace(-1, 1, len(x))[:, None]
        out: Tensor = (self.head(self.plain(self.stem(x + noise))) - 1).square().mean()
        return out


def module() -> Regression:
    torch.manual_seed(0)
    rate = Optimizer(lr=0.1, lr_scale_batch=None)
    return Regression(Net(), rate, Schedule(warmup_epochs=0, min_lr=0.01))


def state(taught: Regression) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in taught.network.state_dict().items()}


def test_frozen_parameters_and_statistics_stay_and_the_rest_trains(tmp_path: Path) -> None:
    taught = module()
    before = state(taught)
    trainer = run(tmp_path, Freeze(["stem.*"]))
    trainer.fit(taught, Ones())
    for name, value in state(taught).items():
        moved = not torch.equal(value, before[name])
        assert moved is not name.startswith("stem."), name
    [optimizer] = trainer.optimizers
    given = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(given) == len(optimizer.state) == 2


def test_a_batch_norm_without_weights_is_held_by_its_statistics(tmp_path: Path) -> None:
    taught = module()
    before = state(taught)
    run(tmp_path, Freeze(["*"], keep=["head.*"])).fit(taught, Ones())
    after = state(taught)
    assert [name for name in after if not torch.equal(after[name], before[name])] == [
        "head.weight",
        "head.bias",
    ]


def test_without_the_callback_everything_trains(tmp_path: Path) -> None:
    taught = module()
    before = state(taught)
    run(tmp_path).fit(taught, Ones())
    after = state(taught)
    for name in ("stem.0.weight", "stem.1.running_mean", "plain.running_mean", "head.bias"):
        assert not torch.equal(after[name], before[name]), name


def test_a_head_that_the_data_brings_trains(tmp_path: Path) -> None:
    class Growing(Regression):
        def adopt_data(self, info: dict[str, Any]) -> None:
            self.network.head = nn.Linear(4, 1)

    rate = Optimizer(lr=0.1, lr_scale_batch=None)
    taught = Growing(Net(), rate, Schedule(warmup_epochs=0, min_lr=0.01))
    taught.network.head = nn.Identity()  # type: ignore[assignment]
    run(tmp_path, Freeze(["*"], keep=["head.*"])).fit(taught, Ones())
    assert "head.weight" not in frozen_names(taught.network)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"patterns": ["stam.*"]}, "did you mean stem"),
        ({"patterns": ["*"], "keep": ["hed.*"]}, "did you mean head"),
        ({"patterns": ["qqqqq"]}, "its names look like stem.0.weight"),
        ({"patterns": ["*"]}, "all 6 frozen"),
    ],
)
def test_a_pattern_without_a_match_is_refused(options: Any, advice: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=advice):
        run(tmp_path, Freeze(**options)).fit(module(), Ones())


class Stop(Callback):
    """A power cut after the first epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = True


def fitted(tmp_path: Path, *callbacks: Any, resume: bool = False) -> Regression:
    taught = module()
    saved = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1)
    path = str(tmp_path / "epoch=0.ckpt") if resume else None
    run(tmp_path, *callbacks, saved).fit(taught, Ones(), ckpt_path=path)
    return taught


def test_a_resumed_run_ends_like_an_uninterrupted_one_with_its_average(tmp_path: Path) -> None:
    whole, parts = EMA(decay=0.9), EMA(decay=0.9)
    expected = fitted(tmp_path / "whole", Freeze(["stem.*"]), whole)
    fitted(tmp_path / "parts", Freeze(["stem.*"]), EMA(decay=0.9), Stop())
    found = fitted(tmp_path / "parts", Freeze(["stem.*"]), parts, resume=True)
    assert all(torch.equal(value, state(found)[name]) for name, value in state(expected).items())
    averages = whole.roles(expected)[0], parts.roles(found)[0]
    assert averages[0].keys() == {"network.head.weight", "network.head.bias"}
    assert all(torch.equal(value, averages[1][name]) for name, value in averages[0].items())


@pytest.mark.parametrize(
    ("first", "then"), [([Freeze(["stem.*"])], []), ([], [Freeze(["stem.0.*"])])]
)
def test_a_run_with_other_frozen_parameters_does_not_resume(
    first: list[Any], then: list[Any], tmp_path: Path
) -> None:
    fitted(tmp_path, *first, Stop())
    with pytest.raises(SuiteError, match=r"(?s)different: stem\.0.*pretrained"):
        fitted(tmp_path, *then, resume=True)


def test_a_checkpoint_of_a_frozen_run_is_evaluated_without_the_callback(tmp_path: Path) -> None:
    taught = fitted(tmp_path, Freeze(["stem.*"]), Stop())
    other = module()
    run(tmp_path).validate(other, Ones(), ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
    assert all(torch.equal(value, state(taught)[name]) for name, value in state(other).items())
