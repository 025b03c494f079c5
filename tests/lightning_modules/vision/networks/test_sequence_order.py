"""Random orders are permutations, and as random as they say."""

from collections import Counter

import torch

from lightning_modules.vision.networks.sequence_order import (
    random_order,
    random_place,
    reversed_order,
)


def test_only_the_first_token_moves_and_to_every_place() -> None:
    torch.manual_seed(0)
    seen = Counter()
    for _ in range(400):
        order = random_place(4).tolist()
        assert [token for token in order if token] == [1, 2, 3]
        seen[order.index(0)] += 1
    assert sorted(seen) == [0, 1, 2, 3] and min(seen.values()) > 60


def test_all_tokens_move() -> None:
    torch.manual_seed(0)
    order = random_order(50)
    assert sorted(order.tolist()) == list(range(50)) and (order != torch.arange(50)).sum() > 40


def test_reversal_comes_with_its_probability() -> None:
    torch.manual_seed(0)
    turned = sum(int(reversed_order(3, 0.25)[0]) // 2 for _ in range(400))
    assert 70 < turned < 130
    assert reversed_order(3, 1.0).tolist() == [2, 1, 0]
    assert reversed_order(3, 0.0).tolist() == [0, 1, 2]


def test_torchs_generator_decides() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append([random_place(9).tolist(), random_order(9).tolist()])
    assert found[0] == found[1]
