"""Order, seeds and shares of draws."""

import json
import random
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.sampling import (
    Draw,
    EvalSampler,
    SeededDataset,
    TrainSampler,
    global_seed,
    seeded,
)


class CountingReader:
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index}


def add_noise(sample: dict[str, Any]) -> dict[str, Any]:
    noise = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    return sample | {"noise": torch.tensor(noise, dtype=torch.float64)}


def noisy_epoch(num_workers: int, epoch: int = 0, seed: int = 0, **sampler: int) -> list[tuple]:
    order = TrainSampler(23, seed=seed, **sampler)
    order.set_epoch(epoch)
    dataset = SeededDataset(CountingReader(), add_noise, seed)
    loader = DataLoader(dataset, batch_size=4, sampler=order, num_workers=num_workers)
    return [
        (int(index), *noise.tolist())
        for batch in loader
        for index, noise in zip(batch["index"], batch["noise"], strict=True)
    ]


def random_numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_repeated_augmentation_takes_the_indices_that_upstream_takes(golden: Path) -> None:
    cases = json.loads((golden / "vision" / "ra_sampler.json").read_text())
    assert len(cases) == 9
    for case in cases:
        sampler = TrainSampler(
            case["n"], rank=case["rank"], world=case["world"], repeats=case["repeats"]
        )
        sampler.set_epoch(case["epoch"])
        assert [draw.index for draw in sampler] == case["indices"]
        assert len(sampler) == case["len"]


@pytest.mark.parametrize("size", [1, 7, 255])
def test_repeating_a_set_below_256_samples_does_not_empty_its_epoch(size: int) -> None:
    assert len(list(TrainSampler(size, repeats=3))) == len(TrainSampler(size, repeats=3)) == size


@pytest.mark.parametrize("seed, epoch", [(0, 0), (3, 2)])
def test_plain_order_is_that_of_torchs_distributed_sampler(seed: int, epoch: int) -> None:
    ours = TrainSampler(12, seed=seed, rank=1, world=3)
    theirs = torch.utils.data.DistributedSampler(range(12), num_replicas=3, rank=1, seed=seed)
    ours.set_epoch(epoch)
    theirs.set_epoch(epoch)
    assert [draw.index for draw in ours] == list(theirs)


@pytest.mark.parametrize("size", [2, 13, 300])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("repeats", [1, 3])
def test_ranks_share_the_global_order_in_equal_parts(size: int, world: int, repeats: int) -> None:
    ranks = [TrainSampler(size, rank=r, world=world, repeats=repeats) for r in range(world)]
    shares = [list(rank) for rank in ranks]
    assert {len(share) for share in shares} == {len(ranks[0])}
    whole = list(TrainSampler(size, repeats=repeats))
    together = sorted(chain(*shares), key=lambda draw: draw.position)
    assert together == whole[: len(together)]
    assert len(whole) - len(together) < world


def test_the_dropped_tail_changes_with_the_epoch() -> None:
    sampler = TrainSampler(5, world=2)
    other = TrainSampler(5, rank=1, world=2)
    dropped = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        other.set_epoch(epoch)
        dropped |= set(range(5)) - {draw.index for draw in chain(sampler, other)}
    assert dropped == set(range(5))


@pytest.mark.parametrize("size", [2, 3, 5, 7, 13, 101])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_covers_every_sample_exactly_once(size: int, world: int) -> None:
    ranks = [EvalSampler(size, rank=rank, world=world) for rank in range(world)]
    assert sorted(draw.index for draw in chain(*ranks)) == list(range(size))
    assert [len(rank) for rank in ranks] == [len(list(rank)) for rank in ranks]


def test_evaluation_draws_do_not_depend_on_the_epoch() -> None:
    sampler = EvalSampler(5, rank=1, world=2)
    before = list(sampler)
    sampler.set_epoch(7)
    assert list(sampler) == before == [Draw(0, 1, 1), Draw(0, 3, 3)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_a_sample(num_workers: int) -> None:
    assert noisy_epoch(num_workers, epoch=1) == noisy_epoch(0, epoch=1)


def test_ranks_do_not_change_a_sample() -> None:
    first, second = noisy_epoch(0, rank=0, world=2), noisy_epoch(0, rank=1, world=2)
    interleaved = list(chain(*zip(first, second, strict=True)))
    assert interleaved == noisy_epoch(0)[:22]


def test_copies_of_a_sample_in_one_epoch_get_different_random_numbers() -> None:
    epoch = noisy_epoch(0, repeats=3)
    copies = [draw[1:] for draw in epoch if draw[0] == epoch[0][0]]
    assert len(copies) == 3
    assert all(len(set(numbers)) == 3 for numbers in zip(*copies, strict=True))


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_every_sample_other_random_numbers(
    change: dict[str, int],
) -> None:
    before, after = noisy_epoch(0), noisy_epoch(0, **change)
    assert not {draw[1:] for draw in before} & {draw[1:] for draw in after}


def test_seeded_restores_all_three_states() -> None:
    with seeded(1, 2, 3):
        expected = random_numbers()
    with seeded(0, 0, 0):
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        with seeded(1, 2, 3):
            inside = random_numbers()
        assert inside == expected
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]
        assert torch.equal(torch.get_rng_state(), before[2])


def test_seeded_restores_the_states_after_an_exception() -> None:
    with seeded(0, 0, 0):
        undisturbed = random_numbers()
    with seeded(0, 0, 0):
        with pytest.raises(KeyError), seeded(1, 2, 3):
            random_numbers()
            raise KeyError
        assert random_numbers() == undisturbed


def test_a_plain_index_is_its_own_position_in_epoch_0() -> None:
    dataset = SeededDataset(CountingReader(), add_noise, seed=0)
    plain, drawn = dataset[4], dataset[Draw(0, 4, 4)]
    assert plain["index"] == drawn["index"] == 4
    assert torch.equal(plain["noise"], drawn["noise"])


def test_the_seed_is_the_one_lightning_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert global_seed() == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "42")
    assert global_seed() == 42
