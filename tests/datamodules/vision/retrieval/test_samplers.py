"""P identities, K images each: exact lengths, shares, and what is shown."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest

from blocks.errors import SuiteError
from datamodules.sampling import Draw
from datamodules.vision.retrieval.samplers import (
    IdentitySampler,
    PKSampler,
    ViewSampler,
    draw_identities,
    most_batches,
)

# Images of each identity: more than enough, just enough, too few.
SIZES = [9, 1, 4, 5, 3, 12, 8, 2, 40, 4, 7]
IDENTITIES = np.repeat(np.arange(len(SIZES)), SIZES)
CAMERAS = np.concatenate([np.arange(size) % 3 for size in SIZES])


def batches(sampler: IdentitySampler, epoch: int = 0) -> list[list[Draw]]:
    sampler.set_epoch(epoch)
    draws = list(sampler)
    assert len(draws) == len(sampler)
    size = sampler.batch_size
    return [draws[i : i + size] for i in range(0, len(draws), size)]


def indices(batch: list[Draw]) -> list[int]:
    return [draw.index for draw in batch]


def pk(**options: Any) -> PKSampler:
    return PKSampler(IDENTITIES, **{"batch_size": 16, "instances": 4, **options})


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("instances", [1, 2, 4])
@pytest.mark.parametrize("people", [1, 3, 11])
def test_every_epoch_has_as_many_batches_of_p_distinct_identities_as_the_length_says(
    balanced: bool, instances: int, people: int
) -> None:
    cameras = CAMERAS if balanced else None
    sampler = pk(batch_size=people * instances, instances=instances, cameras=cameras)
    for epoch in range(20):
        shown = batches(sampler, epoch)
        assert len(shown) == sampler.num_batches > 0
        for batch in shown:
            who = IDENTITIES[indices(batch)].reshape(people, instances)
            assert (who == who[:, :1]).all()
            assert len(set(who[:, 0])) == people


def test_an_image_comes_once_unless_its_identity_has_too_few() -> None:
    for epoch in range(5):
        times = Counter(chain(*map(indices, batches(pk(), epoch))))
        for index, count in times.items():
            assert count == 1 or SIZES[IDENTITIES[index]] < 4


def test_no_batch_could_be_added() -> None:
    def longest(chunks: list[int], people: int) -> int:
        """Naive: always take the fullest, which is optimal."""
        count = 0
        while sum(c > 0 for c in chunks) >= people:
            chunks = sorted(chunks, reverse=True)
            chunks = [c - (i < people) for i, c in enumerate(chunks)]
            count += 1
        return count

    random = np.random.default_rng(0)
    for _ in range(200):
        chunks = random.integers(1, 9, random.integers(1, 12))
        people = int(random.integers(1, len(chunks) + 1))
        assert most_batches(chunks, people) == longest(chunks.tolist(), people)


def test_drawing_never_leaves_a_batch_that_cannot_be_filled() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        left = random.integers(1, 9, random.integers(2, 12))
        people = int(random.integers(1, len(left) + 1))
        for remaining in range(most_batches(left, people), 0, -1):
            drawn = draw_identities(left, remaining, people, random)
            assert len(set(drawn.tolist())) == people
            left[drawn] -= 1
        assert (left >= 0).all()


def test_identities_are_drawn_alike_when_all_have_as_many_images() -> None:
    identities = np.repeat(np.arange(12), 8)
    sampler = PKSampler(identities, batch_size=12, instances=4)
    first: Counter[int] = Counter()
    for epoch in range(400):
        first.update(identities[indices(batches(sampler, epoch)[0])].tolist())
    share = np.array([first[i] for i in range(12)]) / (400 * 12)
    np.testing.assert_allclose(share, 1 / 12, atol=0.025)


def test_few_images_are_drawn_with_replacement() -> None:
    sampler = PKSampler(np.array([0, 0, 0, 1]), batch_size=8, instances=4)
    seen = set()
    for epoch in range(30):
        (batch,) = batches(sampler, epoch)
        seen.add(tuple(sorted(i for i in indices(batch) if i < 3)))
    assert len(seen) > 5
    assert any(len(set(images)) < 3 for images in seen)


def test_the_balanced_order_mixes_cameras_as_far_as_it_can() -> None:
    identities = np.repeat([0, 1, 2], [8, 8, 2])
    cameras = np.array([0, 0, 0, 0, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1])
    plain = balanced = 0
    for epoch in range(40):
        for given in (None, cameras):
            sampler = PKSampler(identities, cameras=given, batch_size=12, instances=4, seed=3)
            for batch in batches(sampler, epoch):
                groups = np.array(indices(batch)).reshape(3, 4)
                found = sum(len(set(cameras[group].tolist())) for group in groups)
                if given is None:
                    plain += found
                else:
                    balanced += found
                    for group in groups:
                        assert len(set(cameras[group].tolist())) >= 2
    assert balanced > plain


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    assert batches(pk(seed=1), 2) == batches(pk(seed=1), 2)
    others = [batches(pk(seed=s), e)[0] for s, e in ((1, 2), (2, 2), (1, 3), (2, 1))]
    assert len({tuple(indices(batch)) for batch in others}) == 4


@pytest.mark.parametrize("kind", ["pk", "views"])
def test_processes_share_the_batches_of_one_in_complete_identities(kind: str) -> None:
    def make(batch_size: int, rank: int = 0, world: int = 1) -> IdentitySampler:
        place = {"batch_size": batch_size, "instances": 2, "rank": rank, "world": world, "seed": 5}
        if kind == "pk":
            return PKSampler(IDENTITIES, **place)
        return ViewSampler(np.repeat(np.arange(9), 6), np.tile([0, 1, 1], 18), **place)

    whole = batches(make(16), 3)
    shares = [batches(make(8, rank, 2), 3) for rank in range(2)]
    assert len(whole) == len(shares[0]) == len(shares[1])
    identities = IDENTITIES if kind == "pk" else np.repeat(np.arange(9), 6)
    for together, first, second in zip(whole, *shares, strict=True):
        key = lambda draw: draw.position  # noqa: E731
        assert sorted(first + second, key=key) == together
        assert not set(identities[indices(first)]) & set(identities[indices(second)])


@pytest.mark.parametrize("world", [1, 2])
def test_a_resumed_epoch_goes_on_where_it_stopped(world: int) -> None:
    def make() -> PKSampler:
        return pk(batch_size=8, rank=world - 1, world=world)

    whole = batches(make(), 4)
    resumed = make()
    resumed.resume(4, seen=2 * 8 * world)
    assert resumed.epoch == 4
    for _ in range(2):  # Lightning iterates twice.
        assert list(resumed) == list(chain(*whole[2:]))
    resumed.set_epoch(5)
    assert list(resumed) == list(chain(*batches(make(), 5)))


def test_positions_are_those_of_the_global_order() -> None:
    positions = [draw.position for draw in chain(*batches(pk()))]
    assert positions == list(range(len(pk())))


@pytest.mark.parametrize("instances", [1, 3])
def test_views_are_the_parts_of_a_batch_with_the_same_identities_in_order(instances: int) -> None:
    identities = np.repeat(np.arange(5), 4)
    views = np.tile([0, 1, 1, 1], 5)
    sampler = ViewSampler(identities, views, batch_size=4 * instances, instances=instances)
    assert sampler.num_batches == 2  # The fifth identity waits for another epoch.
    for epoch in range(10):
        for batch in batches(sampler, epoch):
            own = np.array(indices(batch)).reshape(2, -1)
            assert (views[own[0]] == 0).all() and (views[own[1]] == 1).all()
            assert (identities[own[0]] == identities[own[1]]).all()
            assert len(set(own[1].tolist())) == own[1].size  # Three of three, none twice.


def test_identities_that_lack_a_view_are_left_out_of_pairs() -> None:
    identities = np.array([0, 0, 1, 2, 2, 3])
    views = np.array([0, 1, 0, 0, 1, 1])
    sampler = ViewSampler(identities, views, batch_size=2, instances=1)
    assert sampler.complete == [0, 2]
    assert set(identities[indices(list(sampler))].tolist()) == {0, 2}


@pytest.mark.parametrize("batch_size, cure", [(18, "set it to 16"), (2, "set it to 4")])
def test_a_batch_that_does_not_divide_is_refused_with_a_size_that_does(
    batch_size: int, cure: str
) -> None:
    with pytest.raises(SuiteError, match=f"(?s)divides by 4.*batch_size {batch_size}.*{cure}"):
        pk(batch_size=batch_size)


def test_more_identities_than_there_are_is_refused_with_the_largest_batch() -> None:
    with pytest.raises(SuiteError, match="(?s)at least 12.*found: 11 .*batch_size to 44 or less"):
        pk(batch_size=48)
    with pytest.raises(SuiteError, match="(?s)at least 12.*batch_size to 20 or less"):
        pk(batch_size=24, world=2)
    with pytest.raises(SuiteError, match="fewer devices"):
        pk(batch_size=4, world=12)
