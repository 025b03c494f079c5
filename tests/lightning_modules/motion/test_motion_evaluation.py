"""Training of the evaluators: they learn, by either recipe, and learn nothing from chance."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from blocks.errors import SuiteError
from lightning_modules.motion import (
    MotionEvaluator,
    MotionEvaluatorTraining,
    MovementAutoencoder,
    MovementAutoencoding,
    ShuffledCaptions,
)
from lightning_modules.motion.evaluator_files import load_evaluator
from lightning_modules.motion.motion_evaluation import pairing_loss
from lightning_modules.optimization import Optimizer
from tests.lightning_modules.motion.pairs import EVALUATOR_STD, D, PairsDataModule

FAST = Optimizer(name="adam", lr=3e-3, weight_decay=0.0, lr_scale_batch=None)


def evaluator(**arguments: Any) -> MotionEvaluatorTraining:
    sizes: dict[str, Any] = {"dim_movement": 32, "dim_motion": 32, "dim_text": 32, "dim": 32}
    network = MotionEvaluator(arguments.pop("in_features", D), **sizes, **arguments.pop("more", {}))
    return MotionEvaluatorTraining(network, FAST, **arguments)


def trained(
    module: Any, folder: Path, epochs: int = 14, callbacks: list[Callback] | None = None
) -> dict[str, float]:
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        gradient_clip_val=0.5, callbacks=callbacks, check_val_every_n_epoch=epochs,
    )  # fmt: skip
    trainer.fit(module, PairsDataModule())
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_it_learns_which_caption_belongs_to_which_motion(tmp_path: Path) -> None:
    module = evaluator()
    found = trained(module, tmp_path)
    assert found["val/r_precision_1"] > 0.8 and found["val/r_precision_3"] > 0.95
    assert found["val/r_precision_1_captions"] >= found["val/r_precision_1"]
    file = load_evaluator(tmp_path)
    state = file.network.state_dict()
    assert all(torch.equal(state[k], v) for k, v in module.network.state_dict().items())
    assert file.std is not None and file.std.tolist() == pytest.approx(EVALUATOR_STD)
    assert (file.facts["mode"], file.facts["hash"]) == ("repaired", "0123456789ab")


def test_shuffled_captions_teach_nothing(tmp_path: Path) -> None:
    found = trained(evaluator(), tmp_path, callbacks=[ShuffledCaptions()])
    assert found["val/r_precision_1"] < 0.15


def test_upstreams_two_stages_learn_too_and_leave_the_snippets_alone(tmp_path: Path) -> None:
    first = MovementAutoencoding(MovementAutoencoder(D, 32), FAST)
    before = trained(first, tmp_path / "first", 1)["val/loss"]
    again = MovementAutoencoding(MovementAutoencoder(D, 32), FAST)
    assert trained(again, tmp_path / "first", 12)["val/loss"] < 0.85 * before
    path = tmp_path / "first" / "evaluator" / "movement.tar"
    second = evaluator(loss="margin", movement=str(path))
    found = trained(second, tmp_path / "second", 12)
    assert found["val/r_precision_3"] > 0.5
    given = torch.load(path, weights_only=True)["movement_enc"]
    kept = second.evaluator.movement_encoder.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in given.items())


def test_essential_features_are_enough(tmp_path: Path) -> None:
    module = evaluator(in_features=67, more={"drop_contacts": False})
    assert trained(module, tmp_path)["val/r_precision_3"] > 0.9
    assert load_evaluator(tmp_path).network.in_features == 67


def test_equal_captions_share_their_target() -> None:
    text = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    motion = text[[1, 0, 2, 3]]
    twins = pairing_loss(text, motion, ["a", "a", "b", "c"])
    assert twins == pairing_loss(text, text, ["a", "a", "b", "c"])
    assert twins < pairing_loss(text, motion, ["a", "d", "b", "c"])
    # By hand: the mean of the negative log probabilities of all partners.
    logits = -torch.cdist(text, motion)
    a, b = logits.log_softmax(1), logits.log_softmax(0)
    rows = [(x[0, 0] + x[0, 1] + x[1, 0] + x[1, 1]) / 2 + x[2, 2] + x[3, 3] for x in (a, b)]
    assert twins.item() == pytest.approx(-(rows[0] + rows[1]).item() / 8, rel=1e-5)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="in_features 100"):
        trained(evaluator(in_features=100), tmp_path, 1)
    torch.save({"movement_enc": {}}, tmp_path / "movement.tar")
    with pytest.raises(SuiteError, match=r"movement_autoencoder\.yaml"):
        trained(evaluator(movement=str(tmp_path / "movement.tar")), tmp_path, 1)
