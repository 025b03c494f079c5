"""Re-ranking against the public code's results, and blocks against a whole matrix."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.vision.retrieval import distances
from lightning_modules.vision.retrieval.evaluation import Samples, evaluate
from lightning_modules.vision.retrieval.expansion import Expansion, expand
from lightning_modules.vision.retrieval.reranking import ReRanked, ReRanking


@pytest.fixture
def vectors(golden: Path) -> Any:
    return np.load(golden / "vision/rerank.npz")


def settings_of(vectors: Any, case: int) -> ReRanking:
    k1, k2, weight = vectors["params"][case]
    return ReRanking(int(k1), int(k2), float(weight))


@pytest.mark.parametrize("case", range(3))
def test_distances_are_those_of_the_public_code(case: int, vectors: Any) -> None:
    matrices = (vectors[name] for name in ("q_g_dist", "q_q_dist", "g_g_dist"))
    found = ReRanked.of_matrices(*matrices, settings_of(vectors, case))
    assert found.shape == (10, 50)
    assert np.abs(found.rows(0, 10) - vectors[f"final{case}"]).max() < 1e-5
    assert np.array_equal(found.rows(3, 5), found.rows(0, 10)[3:5])


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("block", [1, 7])
def test_blocks_of_features_give_the_same(
    case: int, block: int, vectors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "_BLOCK_ROWS", block)
    features = torch.from_numpy(vectors["feat"])
    settings = settings_of(vectors, case)
    found = ReRanked.of_features(features[:10], features[10:], "euclidean", settings)
    assert np.abs(found.rows(0, 10) - vectors[f"final{case}"]).max() < 1e-5


def test_more_neighbours_than_images_are_all_images() -> None:
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    found = ReRanked.of_features(features[:2], features[2:]).rows(0, 2)
    assert found.shape == (2, 4) and np.isfinite(found).all()


def clusters() -> tuple[Samples, Samples]:
    """Identities along arcs: neighbours of neighbours tell what the distance alone does not."""
    generator = torch.Generator().manual_seed(0)
    identity = torch.arange(6).repeat_interleave(20)
    along = torch.rand(120, generator=generator)
    features = torch.stack((identity * 0.35, along * 2, torch.full((120,), 3.0)), dim=1)
    camera = torch.randint(2, (120,), generator=generator)
    everyone = Samples(features, identity, camera)
    chosen = torch.arange(120) % 5 == 0
    return everyone[chosen], everyone[~chosen]


def test_re_ranking_finds_what_lies_in_a_chain() -> None:
    query, gallery = clusters()
    plain = evaluate(query, gallery, "cmc_camera", "euclidean")
    again = ReRanked.of_features(query.features, gallery.features, "euclidean", ReRanking(8, 3))
    better = evaluate(query, gallery, "cmc_camera", distances=again)
    assert better.values["mAP"] > plain.values["mAP"] + 5


@pytest.mark.parametrize("values", [(0, 1, 0.3), (5, 0, 0.3), (5, 7, 0.3), (5, 2, 1.5)])
def test_settings_that_make_no_sense_are_refused(values: tuple[int, int, float]) -> None:
    with pytest.raises(SuiteError, match="where: rerank"):
        ReRanking(*values)


def test_expansion_is_the_weighted_mean_over_the_nearest() -> None:
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    query, gallery = expand(features[:4], features[4:], Expansion(neighbours=3, alpha=2.0))
    unit = features / features.norm(dim=1, keepdim=True)
    for i, found in enumerate(torch.cat((query, gallery))):
        similarity = unit @ unit[i]
        order = similarity.argsort(descending=True)[:3]
        wanted = sum(similarity[j].clamp(min=0) ** 2 * features[j] for j in order) / 3
        assert torch.allclose(found, torch.as_tensor(wanted), atol=1e-6)


def test_one_neighbour_changes_no_direction() -> None:
    features = torch.randn(6, 3)
    query, _ = expand(features[:2], features[2:], Expansion(neighbours=1, rounds=2))
    assert torch.allclose(query, features[:2], atol=1e-6)
