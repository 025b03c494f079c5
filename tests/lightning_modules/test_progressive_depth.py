"""Runs that deepen: nothing jumps at the switch, and a run cut in any stage goes on."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from blocks.errors import SuiteError
from datamodules.vision import Augment, ImageNetDataModule
from datamodules.vision.miniatures import write_folder_layout
from lightning_modules.ema import EMA
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.progressive_depth import DepthStage, ProgressiveDepth
from lightning_modules.vision import ImageClassification, Mixing, VisionMamba

STAGES = [DepthStage(1, 1), DepthStage(2, 1), DepthStage(3)]


def module(**options: Any) -> ImageClassification:
    seed_everything(0, verbose=False)
    network = VisionMamba(
        img_size=16, patch_size=8, dim=8, depth=1, num_classes=3, d_state=2, drop_path=0.1
    )
    return ImageClassification(
        network,
        Optimizer(lr=0.01, lr_scale_batch=None),
        Schedule(warmup_epochs=0, **options),
        Mixing(mixup=0.0, cutmix=0.0),
    )


def data(tmp_path: Path) -> ImageNetDataModule:
    if not (root := tmp_path / "data").exists():
        write_folder_layout(root, classes=3, per_class=5, size=16)
    return ImageNetDataModule(
        root=str(root), img_size=16, batch_size=4, num_workers=0, augment=Augment(policy="none")
    )


def trainer(tmp_path: Path, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        **{
            "default_root_dir": tmp_path,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "max_epochs": 3,
            "callbacks": list(callbacks),
            **options,
        }
    )


class Watch(Callback):
    """Takes notes before and after each switch."""

    def __init__(self) -> None:
        self.images = torch.randn(2, 3, 16, 16)
        self.jumps: list[float] = []
        self.moments: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.rates: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        depth = next(c for c in trainer.callbacks if isinstance(c, ProgressiveDepth))
        before, moments = self._look(trainer, pl_module)
        depth.on_train_epoch_start(trainer, pl_module)
        after, again = self._look(trainer, pl_module)
        self.jumps.append(float((after - before).abs().max()))
        self.moments.append((moments, again))

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        self.rates.append({group["name"]: group["lr"] for group in groups})

    def _look(self, trainer: Trainer, module: LightningModule) -> tuple[Tensor, dict[str, Any]]:
        module.eval()
        with torch.no_grad():
            output = module(self.images)
        module.train()
        state = trainer.optimizers[0].state
        names = {p: name for name, p in module.named_parameters()}
        return output, copy.deepcopy({names[p]: dict(values) for p, values in state.items()})


def test_a_switch_changes_no_output_and_no_moment(tmp_path: Path) -> None:
    watch = Watch()
    built = module()
    trainer(tmp_path, watch, ProgressiveDepth(STAGES)).fit(built, data(tmp_path))
    assert len(built.network.layers) == 3
    assert watch.jumps[0] == 0 and max(watch.jumps) < 1e-6
    for before, after in watch.moments[1:]:
        assert before.keys() == after.keys() and len(before) > 5
        for name, values in before.items():
            assert all(torch.equal(values[key], after[name][key]) for key in values)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_new_parameters_warm_up_and_then_follow(interval: Any, tmp_path: Path) -> None:
    watch, built = Watch(), module(interval=interval)
    trainer(tmp_path, watch, ProgressiveDepth(STAGES)).fit(built, data(tmp_path))
    steps = len(watch.rates) // 3
    shares = [rates["decay_depth2"] / rates["decay"] for rates in watch.rates[steps:]]
    if interval == "step":
        rising = [(step + 1) / steps for step in range(steps)]
        assert shares == pytest.approx([*rising, *[1.0] * steps])
    else:
        assert shares == pytest.approx([1.0] * 2 * steps)
    assert watch.rates[0].keys() == {"decay", "no_decay"}
    assert len(watch.rates[-1]) == 6
    groups = built.trainer.optimizers[0].param_groups
    parameters = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in parameters}) == len(parameters) == len(list(built.parameters()))
    assert {g["name"]: g["weight_decay"] for g in groups}["no_decay_depth3"] == 0


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_cut_in_any_stage_goes_on_bit_for_bit(epochs: int, tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        return [ProgressiveDepth(STAGES), EMA(decay=0.9)]

    whole = module()
    run = trainer(tmp_path, *callbacks())
    run.fit(whole, data(tmp_path))
    run.save_checkpoint(tmp_path / "whole.ckpt")

    class Cut(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch + 1 == epochs:
                trainer.save_checkpoint(tmp_path / "cut.ckpt")
                raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        trainer(tmp_path, *callbacks(), Cut()).fit(module(), data(tmp_path))
    again = module()
    rest = trainer(tmp_path, *callbacks())
    rest.fit(again, data(tmp_path), ckpt_path=str(tmp_path / "cut.ckpt"))
    rest.save_checkpoint(tmp_path / "again.ckpt")
    one, other = (
        torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("whole", "again")
    )
    assert one["hyper_parameters"]["network"]["init_args"]["depth"] == 3
    for key in ("state_dict", "current_model_state"):
        assert one[key].keys() == other[key].keys()
        for name, value in one[key].items():
            assert torch.equal(value, other[key][name]), name


def test_the_average_grows_along(tmp_path: Path) -> None:
    average, built = EMA(decay=0.5), module()
    run = trainer(tmp_path, average, ProgressiveDepth(STAGES))
    run.fit(built, data(tmp_path))
    assert average.roles(built)[0].keys() == dict(built.named_parameters()).keys()
    run.save_checkpoint(tmp_path / "a.ckpt")
    # Rebuilt at its present depth, and evaluated by a configuration of the first.
    again = ImageClassification.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu")
    assert len(again.network.layers) == 3
    shallow = module()
    trainer(tmp_path, ProgressiveDepth(STAGES)).validate(
        shallow, data(tmp_path), str(tmp_path / "a.ckpt"), verbose=False
    )
    for name, value in again.state_dict().items():
        assert torch.equal(value, shallow.state_dict()[name])


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([], "none"),
        ([DepthStage(4, 2), DepthStage(2)], "4 for 2 epochs, 2 for None"),
        ([DepthStage(2), DepthStage(4)], "2 for None"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages: list[DepthStage], said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        ProgressiveDepth(stages)


def test_a_network_or_a_run_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    deep = ProgressiveDepth([DepthStage(2, 1), DepthStage(4)])
    with pytest.raises(SuiteError, match="found: depth 1"):
        trainer(tmp_path, deep).fit(module(), data(tmp_path))
    with pytest.raises(SuiteError, match="more than 2 epochs"):
        trainer(tmp_path, ProgressiveDepth(STAGES), max_epochs=2).fit(module(), data(tmp_path))
