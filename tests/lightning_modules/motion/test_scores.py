"""Scores of text and motion against the originals."""

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.motion.scores import (
    diversity,
    draw_pairs,
    frechet_distance,
    multimodality,
    retrieval,
    with_interval,
)
from tests.conftest import GOLDEN


@pytest.fixture(scope="module", params=["metrics", "metrics_small"])
def vectors(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    file = np.load(GOLDEN / "motion" / f"{request.param}.npz")
    return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def test_retrieval_equals_the_original(vectors: dict[str, Tensor]) -> None:
    shares, distance = retrieval(vectors["text"], vectors["gen"])
    expected = vectors["r_precision_top123_batches32_droplast"]
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-12)
    assert distance == pytest.approx(float(vectors["matching_score"]), abs=1e-5)


def test_fid_equals_the_original(vectors: dict[str, Tensor]) -> None:
    real, generated = vectors["real"], vectors["gen"]
    assert frechet_distance(real, generated) == pytest.approx(float(vectors["fid"]), abs=1e-4)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    few = int(vectors["fid_rank_deficient_n"])
    expected = float(vectors["fid_rank_deficient"])
    assert frechet_distance(real, generated[:few]) == pytest.approx(expected, abs=1e-3)


def test_spreads_equal_the_originals(vectors: dict[str, Tensor]) -> None:
    pairs = vectors["diversity_first_idx"], vectors["diversity_second_idx"]
    found = [diversity(vectors[name], *pairs) for name in ("real", "gen")]
    assert float(vectors["diversity"]) == pytest.approx(found[1], abs=1e-5) or float(
        vectors["diversity"]
    ) == pytest.approx(found[0], abs=1e-5)
    pairs = vectors["mm_first_idx"], vectors["mm_second_idx"]
    found_mm = multimodality(vectors["mm_embeddings"], *pairs)
    assert found_mm == pytest.approx(float(vectors["multimodality"]), abs=1e-5)
    rng = np.random.RandomState(int(vectors["numpy_seed"]))
    first, _ = draw_pairs(len(vectors["real"]), int(vectors["diversity_times"]), rng)
    assert torch.equal(first, vectors["diversity_first_idx"])


def test_replications_are_averaged_as_in_the_original(vectors: dict[str, Tensor]) -> None:
    mean, half = with_interval(vectors["replication_values"].tolist())
    assert mean == pytest.approx(float(vectors["replication_mean"]), abs=1e-12)
    assert half == pytest.approx(float(vectors["replication_ci95"]), abs=1e-12)


def test_the_same_caption_is_no_mistake_where_captions_are_given() -> None:
    text = torch.eye(32)
    motion = text[[1, 0, *range(2, 32)]]
    captions = ["walks", "walks", *(str(i) for i in range(30))]
    assert retrieval(text, motion)[0][0] == pytest.approx(30 / 32)
    assert retrieval(text, motion, captions)[0][0] == 1


def test_too_few_samples_are_named() -> None:
    with pytest.raises(SuiteError, match="at least 32"):
        retrieval(torch.zeros(31, 2), torch.zeros(31, 2))
    with pytest.raises(SuiteError, match="at most 20"):
        draw_pairs(20, 300, np.random.RandomState(0))
