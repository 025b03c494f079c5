"""Top-k accuracy against counting by hand."""

import pytest
import torch
from torch import Tensor

from lightning_modules.vision.metrics import ClassCounts, RealTop1, TopK


def by_hand(logits: Tensor, labels: Tensor, k: int) -> float:
    known = right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label < 0:
            continue
        known += 1
        best = sorted(range(len(row)), key=lambda c: -row[c])[:k]
        right += label in best
    return 100 * right / max(known, 1)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("batches", [[1], [7], [4, 4, 1]])
def test_equals_counting_by_hand_over_uneven_batches(k: int, batches: list[int]) -> None:
    torch.manual_seed(k)
    metric, seen = TopK(k), []
    for size in batches:
        logits, labels = torch.randn(size, 8), torch.randint(-1, 8, (size,))
        metric.update(logits, labels)
        seen.append((logits, labels))
    logits, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert float(metric.compute()) == pytest.approx(by_hand(logits, labels, k), abs=1e-4)


def test_unknown_labels_count_neither_for_nor_against() -> None:
    metric = TopK(1)
    metric.update(torch.eye(4), torch.tensor([0, -1, 3, -1]))
    assert float(metric.compute()) == 50
    assert int(metric.total) == 2


def test_a_batch_of_unknown_labels_is_zero_not_nan() -> None:
    metric = TopK(5)
    metric.update(torch.randn(3, 8), torch.full((3,), -1))
    assert float(metric.compute()) == 0


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_k_stays_below_the_number_of_classes(classes: int) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(40, classes), torch.randint(0, classes, (40,))
    metric = TopK(5)
    metric.update(logits, labels)
    found = float(metric.compute())
    assert found == pytest.approx(by_hand(logits, labels, classes - 1), abs=1e-4)
    assert found < 100


def test_a_single_class_is_always_right() -> None:
    metric = TopK(5)
    metric.update(torch.randn(3, 1), torch.zeros(3, dtype=torch.long))
    assert float(metric.compute()) == 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_takes_half_precision_logits(dtype: torch.dtype) -> None:
    metric = TopK(1)
    metric.update(torch.eye(3).to(dtype), torch.arange(3))
    assert float(metric.compute()) == 100


def test_counts_are_exact_where_float32_would_stop_counting() -> None:
    metric = TopK(1)
    metric.total += 2**24
    metric.update(torch.eye(2), torch.arange(2))
    assert int(metric.total) == 2**24 + 2


def test_a_reset_forgets() -> None:
    metric = TopK(1)
    metric.update(torch.eye(2), torch.tensor([1, 0]))
    metric.reset()
    metric.update(torch.eye(2), torch.tensor([0, 1]))
    assert float(metric.compute()) == 100


def test_real_top1_takes_any_of_an_images_labels_and_leaves_out_images_without() -> None:
    logits = torch.eye(5)[[0, 1, 2, 3, 4]]
    real = torch.tensor([[0, -1, -1], [2, 1, -1], [3, 4, 0], [-1, -1, -1], [4, 3, 2]])
    metric = RealTop1()
    for part in (slice(0, 2), slice(2, 5)):
        metric.update(logits[part], real[part])
    assert float(metric.compute()) == 75
    assert int(metric.total) == 4


def test_real_top1_of_a_set_without_labels_is_zero_not_nan() -> None:
    metric = RealTop1()
    metric.update(torch.randn(3, 4), torch.full((3, 2), -1))
    assert float(metric.compute()) == 0


def test_class_counts_add_up_over_uneven_batches() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(37, 8), torch.randint(-1, 8, (37,))
    metric = ClassCounts(8)
    for part in (slice(0, 16), slice(16, 36), slice(36, 37)):
        metric.update(logits[part], labels[part])
    confusion, among = metric.compute()
    best = logits.argsort(dim=1, descending=True)
    for truth in range(8):
        mine = best[labels == truth]
        assert confusion[truth].tolist() == [int((mine[:, 0] == c).sum()) for c in range(8)]
        assert int(among[truth]) == int((mine[:, :5] == truth).any(1).sum())
