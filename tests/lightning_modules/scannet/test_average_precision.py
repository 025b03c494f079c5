"""ScanNet's average precision: the benchmark's own numbers, and the definition pair by pair."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.naive_instance_ap import Sample, naive_average_precision
from lightning_modules.scannet.average_precision import (
    AP_THRESHOLDS,
    THRESHOLDS,
    Matches,
    average_precision,
    match,
)

CASES = (
    "basic", "void_and_small", "duplicates_ties", "missing_classes", "agnostic", "all198",
    "min_region_10",
)  # fmt: skip


def scenes(golden: Path, case: str) -> tuple[list[Sample], dict[str, Any]]:
    facts = json.loads((golden / "scannet" / "ap_eval.json").read_text())[case]
    arrays = np.load(golden / "scannet" / "ap_eval.npz")
    place = np.full(5000, -1)
    place[facts["class_ids"]] = np.arange(len(facts["class_ids"]))
    found = []
    for k in range(facts["scenes"]):
        truth = arrays[f"{case}/gt_{k}"]
        packed = arrays[f"{case}/masks_{k}"]
        masks = np.unpackbits(packed, axis=1, count=len(truth)).astype(bool)
        labels, semantic = place[arrays[f"{case}/labels_{k}"]], place[truth // 1000]
        if facts["agnostic"]:
            labels, semantic = np.zeros_like(labels), np.where(truth > 0, 0, -1)
        found.append(Sample(masks, labels, arrays[f"{case}/conf_{k}"], truth, semantic))
    return found, facts


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_the_benchmark(golden: Path, case: str) -> None:
    samples, facts = scenes(golden, case)
    least = facts["min_region_size"]
    classes = 1 if facts["agnostic"] else len(facts["class_ids"])
    found = average_precision([match(*s, min_points=least) for s in samples], classes, least)
    for name, value in found.summary().items():
        assert value == pytest.approx(facts[f"all_{name}"], abs=1e-9)
    for row, expected in enumerate(facts["classes"].values()):
        for name, values in (("ap", found.ap), ("ap50", found.ap50), ("ap25", found.ap25)):
            if expected[name] is None:
                assert np.isnan(values[row])
            else:
                assert values[row] == pytest.approx(expected[name], abs=1e-9)


def random_sample(seed: int, masks: int = 14, points: int = 400, classes: int = 3) -> Sample:
    """Small instances and masks that overlap several of them, with few levels of confidence."""
    rng = np.random.default_rng(seed)
    instance = np.repeat(rng.permutation(10) - 2, points // 10).clip(-1)
    semantic = np.where(instance < 0, -1, instance % classes)
    centres, widths = rng.integers(0, points, masks), rng.integers(8, 60, masks)
    found = np.abs(np.arange(points) - centres[:, None]) < widths[:, None]
    labels = rng.integers(0, classes, masks)
    return Sample(found, labels, rng.integers(1, 5, masks) / 5, instance, semantic)


@pytest.mark.parametrize("seed", range(12))
def test_it_agrees_with_the_definition(seed: int) -> None:
    samples = [random_sample(10 * seed + k) for k in range(3)]
    expected = naive_average_precision(samples, 3, THRESHOLDS, min_points=20)
    found = average_precision([match(*s, min_points=20) for s in samples], 3, min_points=20)
    np.testing.assert_allclose(found.per_class, expected, atol=1e-12)
    assert np.nanmax(expected) > 0.05, "a comparison of nothing with nothing"


def test_a_mask_that_meets_two_instances_is_taken_once() -> None:
    """Below an overlap of 0.5 order matters: the first instance takes the mask."""
    instance = np.repeat([0, 1], 50)
    both = np.ones((1, 100), dtype=bool)
    sample = Sample(both, np.zeros(1, int), np.ones(1), instance, np.zeros(100, int))
    found = average_precision([match(*sample, min_points=10)], 1, min_points=10)
    assert found.ap25[0] == pytest.approx(
        naive_average_precision([sample], 1, THRESHOLDS, 10)[0, -1]
    )
    # One hit, one miss: precision 1 up to a recall of one half.
    assert found.ap25[0] == pytest.approx(0.5) and found.ap50[0] == 0


def test_truth_scores_one_and_nothing_scores_nothing() -> None:
    instance = np.repeat([3, 5, -1], 200)
    semantic = np.repeat([1, 0, -1], 200)
    masks = np.stack((instance == 3, instance == 5))
    records = [match(masks, np.array([1, 0]), np.array([0.3, 0.9]), instance, semantic)]
    assert average_precision(records, 3).summary() == {"ap": 1, "ap50": 1, "ap25": 1}
    none = np.zeros((0, 600), dtype=bool)
    empty = [match(none, np.zeros(0, int), np.zeros(0), instance, semantic)]
    scores = average_precision(empty, 3)
    assert scores.summary() == {"ap": 0, "ap50": 0, "ap25": 0}
    assert np.isnan(scores.ap[2]), "a class nobody has does not count"
    assert np.isnan(average_precision([], 3).summary()["ap"])


def test_masks_on_void_are_excused() -> None:
    instance = np.repeat([0, -1], 300)
    masks = np.stack((instance == 0, instance == -1))
    labels, scores = np.zeros(2, int), np.array([0.5, 0.9])
    found = average_precision([match(masks, labels, scores, instance, instance.clip(-1, 0))], 1)
    assert found.ap[0] == 1


def test_thresholds_end_at_090_and_overlap_must_be_above() -> None:
    np.testing.assert_allclose(AP_THRESHOLDS, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9])
    instance = np.repeat([0, -1], [200, 200])
    half = np.zeros((1, 400), dtype=bool)
    half[0, 100:300] = True  # 100 shared, 300 in all
    half[0, :100] = True  # 200 shared, 300 in all: 2 / 3
    found = average_precision([match(half, np.zeros(1, int), np.ones(1), instance, instance)], 1)
    assert (found.per_class[0] == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]).all()


def test_nothing_it_is_given_changes() -> None:
    """Upstream numbers the truth anew in place: a second evaluation of it is wrong."""
    sample = random_sample(3)
    before = [array.copy() for array in sample]
    records = [match(*sample, min_points=20)]
    kept = [getattr(records[0], name).copy() for name in Matches.__dataclass_fields__]
    first = average_precision(records, 3, min_points=20)
    for array, copy in zip(sample, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for name, copy in zip(Matches.__dataclass_fields__, kept, strict=True):
        np.testing.assert_array_equal(getattr(records[0], name), copy)
    again = average_precision([match(*sample, min_points=20)], 3, min_points=20)
    np.testing.assert_array_equal(first.per_class, again.per_class)
