"""Evaluation of generated motion within a Trainer, on modules whose answer is known."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.motion import GenerationEvaluation, GenerationProtocol, MotionEvaluator
from lightning_modules.motion.evaluator_files import save_evaluator
from tests.lightning_modules.motion.pairs import (
    EVALUATOR_STD,
    MEAN,
    D,
    Oracle,
    PairsDataModule,
)

SIZES = {"dim_movement": 16, "dim_motion": 16, "dim_text": 16, "dim": 12}
QUICK = GenerationProtocol(None, 2, 3, 4, 1)


class Nothing(Recorded, nn.Module):
    """A network without a task."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One that was never trained: distances in its space are still distances."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("evaluator") / "finest.tar"
    statistics = map(torch.tensor, (MEAN, EVALUATOR_STD))
    save_evaluator(path, MotionEvaluator(D, **SIZES), *statistics, {"mode": "repaired"})
    return str(path)


def scores_of(
    module: Oracle, evaluator: str, folder: Path, data: PairsDataModule | None = None, **more: Any
) -> tuple[dict[str, float], Trainer]:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False,
        callbacks=[GenerationEvaluation(evaluator, test=QUICK, val=QUICK)], **more,
    )  # fmt: skip
    trainer.test(module, data or PairsDataModule(), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}, trainer


def test_truth_scores_as_truth_and_noise_scores_worse(evaluator: str, tmp_path: Path) -> None:
    same, _ = scores_of(Oracle(Nothing()), evaluator, tmp_path)
    assert same["test/fid"] == pytest.approx(0, abs=1e-6)
    for name in ("r_precision_1", "r_precision_3_captions", "mm_dist", "diversity"):
        assert same[f"test/{name}"] == pytest.approx(same[f"test_gt/{name}"], abs=1e-6)
    assert same["test/multimodality"] == pytest.approx(0, abs=1e-5)
    assert "test/r_precision_1_ci95" in same and "test/loss" in same
    noisy, _ = scores_of(Oracle(Nothing(), error=2.0), evaluator, tmp_path)
    assert noisy["test/fid"] > 100 * max(same["test/fid"], 1e-6)
    assert noisy["test/multimodality"] > 0.01
    assert noisy["test_gt/r_precision_1"] == same["test_gt/r_precision_1"]


def test_ground_truth_comes_first_and_the_protocol_goes_with_it(
    evaluator: str, tmp_path: Path
) -> None:
    module = Oracle(Nothing(), error=0.5)
    scores_of(module, evaluator, tmp_path)
    with (tmp_path / "generation_test.csv").open() as file:
        truth, generated = csv.DictReader(file)
    assert (truth["motion"], generated["motion"]) == ("ground truth", "generated")
    assert (generated["n_real"], generated["n_generated"]) == ("40", "40")
    assert (generated["replications"], generated["several"]) == ("2", "3x4")
    text = module.info["protocol"]
    assert text.startswith("pairs; generation: 40 generated against 40 real")
    assert generated["evaluator"] in text
    scores_of(module, evaluator, tmp_path)
    assert module.info["protocol"] == text


def test_batches_do_not_matter_and_noise_belongs_to_samples(evaluator: str, tmp_path: Path) -> None:
    results, keys = [], []
    for size in (8, 40):
        module = Oracle(Nothing(), error=0.5)
        found, _ = scores_of(module, evaluator, tmp_path, PairsDataModule(val_batch_size=size))
        results.append(found)
        keys.append(sorted((key, seed) for call, seed in module.calls for key in call))
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    assert keys[0] == keys[1]
    # Two replications of 40 samples, and three captions with four motions in the first.
    assert len(keys[0]) == 92 and len({key for key, seed in keys[0] if seed == 0}) == 49


def test_while_training_every_evaluation_has_the_same_noise(evaluator: str, tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    module = Oracle(Nothing(), error=0.5)

    def training_step(batch: Any, batch_idx: int) -> torch.Tensor:
        return module.network.weight * batch["motion"].mean()  # type: ignore[operator]

    module.training_step = training_step  # type: ignore[assignment,method-assign]
    callback = GenerationEvaluation(evaluator, 2, GenerationProtocol(16, 1, 0))
    trainer = Trainer(
        accelerator="cpu", max_epochs=4, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, enable_checkpointing=False,
        limit_train_batches=1, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module, PairsDataModule())
    calls = module.calls
    # Epoch 1 for there is nothing yet, 2 and 4; none in the sanity check.
    assert len(calls) % 3 == 0
    third = len(calls) // 3
    assert calls[:third] == calls[third : 2 * third] == calls[2 * third :]
    assert sum(len(keys) for keys, _ in calls) == 3 * 16
    assert float(trainer.callback_metrics["val/fid"]) == pytest.approx(callback.last["val/fid"])
    assert callback.state_dict() == {"last": callback.last}
    assert "val/fid_ci95" not in trainer.callback_metrics


def test_a_part_of_the_data_is_an_evaluation_of_that_part(evaluator: str, tmp_path: Path) -> None:
    module = Oracle(Nothing())
    found, _ = scores_of(module, evaluator, tmp_path, limit_test_batches=2)
    assert "16 generated against 16 real" in module.info["protocol"]
    assert found["test/r_precision_1"] != found["test/r_precision_1"]  # Too few for a batch of 32.
    assert found["test/diversity"] > 0


def test_scrambled_motion_matches_by_chance(evaluator: str, tmp_path: Path) -> None:
    found, _ = scores_of(Oracle(Nothing(), scrambled=True), evaluator, tmp_path)
    assert found["test/r_precision_1"] < 0.2


def test_a_protocol_of_nothing_is_refused() -> None:
    with pytest.raises(SuiteError, match="at least one sample"):
        GenerationProtocol(replications=0)
