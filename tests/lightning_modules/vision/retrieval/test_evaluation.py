"""Evaluation against fast-reid, torchreid and University-1652, and against sorting naively."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.vision.retrieval import distances as blocks_of_distances
from lightning_modules.vision.retrieval.distances import FeatureDistances, MatrixDistances
from lightning_modules.vision.retrieval.evaluation import (
    Samples,
    average_precision,
    evaluate,
)
from lightning_modules.vision.retrieval.ranking import Matches, positive_ranks
from lightning_modules.vision.retrieval.verification import tpr_at_fpr

RATES = (1e-4, 1e-3, 1e-2)


def read_case(golden: Path, number: int) -> tuple[dict[str, Any], Samples, Samples, Any]:
    arrays = np.load(golden / "vision/reid_eval.npz")
    expected = json.loads((golden / "vision/reid_eval.json").read_text())[number]
    sides = [
        Samples(
            *(torch.from_numpy(arrays[f"case{number}.{s}_{k}"]) for k in ("feat", "pid", "cam"))
        )
        for s in "qg"
    ]
    return expected, *sides, arrays[f"case{number}.dist"]


@pytest.mark.parametrize("number", range(4))
def test_camera_protocol_is_that_of_three_public_evaluators(number: int, golden: Path) -> None:
    expected, query, gallery, matrix = read_case(golden, number)
    found = evaluate(
        query,
        gallery,
        "cmc_camera",
        distances=MatrixDistances(matrix),
        max_rank=expected["max_rank"],
        fpr=RATES,
    )
    assert found.cmc == pytest.approx(expected["cmc"], abs=1e-6)
    assert found.values["mAP"] == pytest.approx(100 * expected["mAP"], abs=1e-4)
    assert found.values["mINP"] == pytest.approx(100 * expected["mINP"], abs=1e-4)
    valid = ~np.isnan(found.average_precision)
    assert valid.sum() == expected["num_valid_queries"]
    assert found.average_precision[valid] == pytest.approx(expected["per_valid_query_AP"], abs=1e-6)
    penalties = found.inverse_negative_penalty[valid]
    assert penalties == pytest.approx(expected["per_valid_query_INP"], abs=1e-6)
    chosen = (found.values["mAP"] + found.values["rank1"]) / 200
    assert chosen == pytest.approx(expected["fastreid_metric"], abs=1e-6)
    for rate, value in zip(RATES, expected["tpr_at_fpr"].values(), strict=True):
        assert found.tpr_at_fpr[rate] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_trapezoid_protocol_is_that_of_university_1652(number: int, golden: Path) -> None:
    expected, query, gallery, _ = read_case(golden, number)
    found = evaluate(query, gallery, "trapezoid")
    wanted = expected["university1652"]
    names = {"recall1": "recall_at_1", "recall5": "recall_at_5", "recall10": "recall_at_10"}
    for name in ("recall1", "recall5", "recall10", "recall_top1pct", "AP"):
        value = wanted[names.get(name, name)]
        assert found.values[name] == pytest.approx(value, abs=1e-4), name
    aps = [np.nan if ap is None else ap for ap in wanted["per_query_ap"]]
    assert found.average_precision == pytest.approx(aps, abs=1e-6, nan_ok=True)


def test_the_protocols_never_share_a_name(golden: Path) -> None:
    _, query, gallery, _ = read_case(golden, 1)
    camera = evaluate(query, gallery, "cmc_camera")
    trapezoid = evaluate(query, gallery, "trapezoid")
    assert not camera.values.keys() & trapezoid.values.keys()
    assert "cmc_camera" in camera.protocol and "19 of 24" in camera.protocol
    assert "trapezoid" in trapezoid.protocol


def naive(query: Samples, gallery: Samples, matrix: Any) -> tuple[list[float], list[int]]:
    """APs and first ranks by sorting, one query after the other."""
    precisions, firsts = [], []
    for row, identity, camera in zip(matrix, query.identity, query.camera, strict=True):
        order = np.argsort(row, kind="stable")
        keep = [g for g in order if gallery.identity[g] != identity or gallery.camera[g] != camera]
        ranks = [i + 1 for i, g in enumerate(keep) if gallery.identity[g] == identity]
        if ranks:
            precisions.append(average_precision(np.array(ranks)))
            firsts.append(ranks[0])
    return precisions, firsts


def random_samples(count: int, identities: int, seed: int, ties: bool = False) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 6, generator=generator)
    if ties:
        features = features.round().clamp(-1, 1)
    identity = torch.randint(identities, (count,), generator=generator)
    return Samples(features, identity, torch.randint(3, (count,), generator=generator))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("identities", [1, 30])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_and_counting_equal_a_stable_sort(
    ties: bool, identities: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_of_distances, "_BLOCK_ROWS", block)
    query, gallery = (random_samples(n, identities, n, ties) for n in (40, 450))
    matrix = FeatureDistances(query.features, gallery.features, "euclidean").rows(0, 40)
    if ties:
        matrix = matrix.round()
    found = evaluate(query, gallery, "cmc_camera", distances=MatrixDistances(matrix))
    precisions, firsts = naive(query, gallery, matrix)
    valid = ~np.isnan(found.average_precision)
    assert found.average_precision[valid] == pytest.approx(precisions, abs=1e-12)
    assert found.values["rank1"] == pytest.approx(100 * np.mean(np.array(firsts) == 1))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_order_as_their_definition(metric: Any) -> None:
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    found = FeatureDistances(a.float(), b.float(), metric).rows(1, 4)
    if metric == "cosine":
        wanted = -torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
    else:
        wanted = torch.cdist(a, b).square()
    assert np.allclose(found, wanted[1:4].numpy(), atol=1e-5)


def test_a_tie_goes_to_the_lower_gallery_index() -> None:
    row = np.array([1.0, 0.5, 0.5, 0.5, 2.0], dtype=np.float32)
    none = np.array([], dtype=np.int64)
    assert positive_ranks(row, Matches(np.array([2]), none)).tolist() == [2]
    assert positive_ranks(row, Matches(np.array([2]), np.array([1]))).tolist() == [1]
    assert positive_ranks(row, Matches(np.array([2]), np.array([3]))).tolist() == [2]


def test_a_gallery_shorter_than_the_ranks_asked_for_is_padded() -> None:
    query, gallery = samples([0], [0]), samples([0, 1, 0], [0, 1, 1])
    found = evaluate(query, gallery, "cmc_camera")
    assert found.cmc.shape == (3,)
    assert found.values["rank10"] == 100


def samples(identity: list[int], camera: list[int]) -> Samples:
    features = torch.randn(len(identity), 4, generator=torch.Generator().manual_seed(1))
    return Samples(features, torch.tensor(identity), torch.tensor(camera))


def test_junk_is_left_out_of_the_gallery() -> None:
    query, gallery = samples([3], [0]), samples([3, 4, 4], [1, 1, 1])
    junk = Samples(
        torch.cat((query.features, gallery.features)),
        torch.cat((torch.tensor([-1]), gallery.identity)),
        torch.ones(4, dtype=torch.long),
    )
    results = [evaluate(query, g, "cmc_camera") for g in (gallery, junk)]
    assert results[0].values == results[1].values
    assert "3 gallery images" in results[1].protocol


def fails(query: Samples, gallery: Samples) -> str:
    with pytest.raises(SuiteError) as caught:
        evaluate(query, gallery, "cmc_camera")
    return str(caught.value)


def test_queries_that_cannot_be_answered_are_explained() -> None:
    missing = fails(samples([1, 2], [0, 0]), samples([3, 4], [1, 1]))
    assert "query identities 1, 2, gallery identities 3, 4" in missing
    one_camera = fails(samples([1, 2], [0, 0]), samples([1, 2], [0, 0]))
    assert "another camera" in one_camera and "different camera numbers" in one_camera
    assert "0 queries" in fails(samples([], []), samples([1], [0]))


def test_a_diverged_network_does_not_score_100() -> None:
    gallery = samples([1, 2], [1, 1])
    lost = Samples(gallery.features * torch.nan, gallery.identity, gallery.camera)
    assert "NaN or infinity in 2 of 2" in fails(samples([1], [0]), lost)


@pytest.mark.parametrize("rounded", [0, 1, 6])
def test_verification_is_the_curve_of_scikit_learn(rounded: int) -> None:
    from sklearn.metrics import roc_curve

    generator = np.random.default_rng(rounded)
    rows = generator.normal(size=(30, 200)).astype(np.float32).round(rounded)
    matches = [Matches(np.arange(10), np.array([10, 11])) for _ in rows]
    different, true = rows[:, 12:].ravel(), rows[:, :10].ravel()
    labels = np.repeat([1, 0], [len(different), len(true)])
    false_rates, true_rates, _ = roc_curve(labels, np.concatenate((different, true)))
    rates = (0.001, 0.01, 0.3)
    found = tpr_at_fpr(MatrixDistances(rows), matches, true, rates)
    for rate in rates:
        assert found[rate] == true_rates[np.abs(false_rates - rate).argmin()]
