"""Digits and motions train one trunk: metrics, checkpoints, resuming and taking a head out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from blocks.errors import SuiteError
from datamodules.co_training import CoTrainingDataModule
from datamodules.motion import HumanML3DDataModule
from datamodules.motion.miniatures import write_miniature
from datamodules.vision import Augment, ImageNetDataModule
from lightning_modules.co_training import CoTraining
from lightning_modules.ema import EMA
from lightning_modules.motion import TextToMotion, TrunkDenoiser
from lightning_modules.motion.text_encoders.embedded import EmbeddedText
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.trunk import MambaTrunk
from lightning_modules.vision import ImageClassification, Mixing, TrunkClassifier


class Stop(Exception):
    """Ends a run where a test wants it."""


class StopAfter(Callback):
    """Raises once a number of steps is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Stop


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motions")
    write_miniature(root, clips=8, odd=False)
    return root


def module(weights: dict[str, float] | None = None) -> CoTraining:
    seed_everything(0)
    digits = ImageClassification(
        TrunkClassifier(8, 4, num_classes=10, dim=8), mixing=Mixing(mixup=0.0, cutmix=0.0)
    )
    motion = TextToMotion(TrunkDenoiser(text_dim=6, dim=8), EmbeddedText(6), diffusion_steps=20)
    return CoTraining(
        MambaTrunk(8, depth=1, d_state=2),
        {"digits": digits, "motion": motion},
        weights,
        Optimizer(lr=1e-3, lr_scale_batch=None),
        Schedule(warmup_epochs=0, min_lr=1e-4),
    )


def data(motions: Path) -> CoTrainingDataModule:
    augment = Augment(auto_augment=None, reprob=0.0)
    return CoTrainingDataModule(
        {
            "digits": ImageNetDataModule(
                img_size=8, batch_size=16, num_workers=0, crop_pct=1.0, augment=augment
            ),
            "motion": HumanML3DDataModule(root=str(motions), batch_size=2, num_workers=0),
        },
        steps=6,
    )


def trainer(folder: Path, *callbacks: Callback, epochs: int = 2) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, logger=False, max_epochs=epochs, limit_val_batches=3,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=list(callbacks), use_distributed_sampler=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(motions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, CoTraining]:
    joint = module({"motion": 0.5})
    folder = tmp_path_factory.mktemp("run")
    saving = ModelCheckpoint(folder, filename="last", save_top_k=1)
    run = trainer(folder, saving, EMA(decay=0.5))
    run.fit(joint, data(motions))
    return run, joint


def test_metrics_bear_the_names_of_their_heads(trained: tuple[Trainer, CoTraining]) -> None:
    run, joint = trained
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    assert {"val/digits/top1", "val/digits/loss", "val/motion/loss", "train/loss"} <= found.keys()
    assert "val/top1" not in found
    expected = found["val/digits/loss"] + 0.5 * found["val/motion/loss"]
    assert found["val/loss"] == pytest.approx(expected, rel=1e-6)
    raw = found["val_raw/digits/loss"] + 0.5 * found["val_raw/motion/loss"]
    assert found["val_raw/loss"] == pytest.approx(raw, rel=1e-6)
    assert joint.units["digits/top1"] == "%"
    assert run.global_step == 12


def test_a_checkpoint_holds_every_weight_once_and_builds_the_module(
    trained: tuple[Trainer, CoTraining],
) -> None:
    run, joint = trained
    path = run.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    content = torch.load(path, weights_only=True)
    shared = [name for name in content["state_dict"] if "trunk." in name]
    assert shared and all(name.startswith("network.trunk.") for name in shared)
    assert set(content["hyper_parameters"]["heads"]) == {"digits", "motion"}
    again = CoTraining.load_from_checkpoint(path)
    assert again.weights == {"digits": 1.0, "motion": 0.5}
    average = content["state_dict"]
    for name, value in again.state_dict().items():
        assert torch.equal(value, average[name]), name


def test_a_head_taken_out_computes_the_same(
    trained: tuple[Trainer, CoTraining], motions: Path, tmp_path: Path
) -> None:
    run, _ = trained
    again = CoTraining.load_from_checkpoint(run.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 8, 8)
    digits = again.standalone("digits").eval()
    torch.testing.assert_close(digits(images), again.eval()("digits", images))
    motion = again.standalone("motion").eval()
    assert isinstance(motion, TextToMotion)
    captions = ["a person walks", "someone jumps"]
    found = motion.generate(captions, torch.tensor([8, 12]))
    assert found.shape == (2, 12, 263) and found.isfinite().all()
    alone = trainer(tmp_path)
    (scores,) = alone.validate(motion, data(motions).heads["motion"], verbose=False)
    joint = trainer(tmp_path)
    (both,) = joint.validate(again, data(motions), verbose=False)
    assert scores["val/loss"] == pytest.approx(both["val/motion/loss"], rel=1e-6)
    with pytest.raises(SuiteError, match="one of the heads digits, motion"):
        again.standalone("pose")


def test_a_run_cut_within_an_epoch_ends_with_the_same_weights(
    trained: tuple[Trainer, CoTraining], motions: Path, tmp_path: Path
) -> None:
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=1, filename="cut")
    with pytest.raises(Stop):
        trainer(tmp_path, saving, EMA(decay=0.5), StopAfter(8)).fit(
            module({"motion": 0.5}), data(motions)
        )
    (path,) = tmp_path.glob("*.ckpt")
    assert torch.load(path, weights_only=True)["global_step"] == 7
    resumed = module({"motion": 0.5})
    trainer(tmp_path, EMA(decay=0.5)).fit(resumed, data(motions), ckpt_path=path)
    for name, value in trained[1].state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_gradients_of_the_trunk_are_the_weighted_sum(motions: Path) -> None:
    def gradient(weights: dict[str, float]) -> torch.Tensor:
        joint = module(weights)
        run = trainer(motions, epochs=1)
        found: list[torch.Tensor] = []

        class Watch(Callback):
            def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
                found.append(next(pl_module.network.trunk.parameters()).grad.clone())
                raise Stop

        run.callbacks.append(Watch())  # type: ignore[attr-defined]
        with pytest.raises(Stop):
            run.fit(joint, data(motions))
        return found[0]

    both = gradient({"digits": 2.0, "motion": 3.0})
    one, other = gradient({"digits": 2.0, "motion": 0.0}), gradient({"digits": 0.0, "motion": 3.0})
    torch.testing.assert_close(both, one + other)
    assert one.abs().sum() > 0 and other.abs().sum() > 0


def test_wrong_heads_are_named(motions: Path) -> None:
    with pytest.raises(SuiteError, match="two heads or more"):
        CoTraining(MambaTrunk(8, 1), {})
    with pytest.raises(SuiteError, match="one of the heads"):
        module({"pose": 1.0})
    wrong = data(motions)
    wrong.heads["words"] = wrong.heads.pop("motion")
    with pytest.raises(SuiteError, match="data for digits, motion"):
        trainer(motions).fit(module(), wrong)
    given = ImageClassification(TrunkClassifier(8, 4, 10, dim=8), pretrained="weights.pth")
    with pytest.raises(SuiteError, match="weights.pth for a alone"):
        CoTraining(MambaTrunk(8, 1), {"a": given, "b": given})
    with pytest.raises(SuiteError, match="at least one step"):
        CoTrainingDataModule({}, steps=0)
    with pytest.raises(SuiteError, match="one workload to predict with"):
        module().setup("predict")
