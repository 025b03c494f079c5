"""Accuracies as ImageNet reports them: Top-k, ReaL, and each class by itself."""

import torch
from torch import Tensor
from torchmetrics import Metric


class TopK(Metric):
    """Percentage of samples whose label is among the k largest logits.

    Two counters, so the value is exact over uneven batches and processes. Where there are no more
    than k classes, k is their number less one, so that the value says something.

    Args:
        k: How many guesses count.
    """

    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.add_state("correct", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch.

        Args:
            logits: (B, classes).
            labels: (B,) class numbers; negative ones (unknown) do not count.
        """
        known = labels >= 0
        k = max(min(self.k, logits.shape[1] - 1), 1)
        guesses = logits[known].topk(k, dim=1).indices
        self.correct += (guesses == labels[known, None]).sum()
        self.total += known.sum()

    def compute(self) -> Tensor:
        """Percentage in 0..100."""
        return 100 * self.correct / self.total.clamp(min=1)


class RealTop1(Metric):
    """Percentage of images whose first guess is one of their reassessed labels (arXiv 2006.07159).

    Images without any such label are left out.
    """

    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, real_labels: Tensor) -> None:
        """Counts a batch.

        Args:
            logits: (B, classes).
            real_labels: (B, R) class numbers, rows filled up with -1.
        """
        labels = real_labels.to(logits.device)
        self.correct += (labels == logits.argmax(1, keepdim=True)).any(1).sum()
        self.total += (labels >= 0).any(1).sum()

    def compute(self) -> Tensor:
        """Percentage in 0..100."""
        return 100 * self.correct / self.total.clamp(min=1)


class ClassCounts(Metric):
    """For each class its images, how many of them are right, and what they are taken for.

    Args:
        classes: How many there are.
        k: Guesses that count for `among_k`; fewer than there are classes, as in `TopK`.
    """

    full_state_update = False
    confusion: Tensor
    among_k: Tensor

    def __init__(self, classes: int, k: int = 5) -> None:
        super().__init__()
        self.k = max(min(k, classes - 1), 1)
        cells, counts = torch.zeros(classes, classes), torch.zeros(classes)
        self.add_state("confusion", cells.long(), dist_reduce_fx="sum")
        self.add_state("among_k", counts.long(), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch.

        Args:
            logits: (B, classes).
            labels: (B,) class numbers; negative ones (unknown) do not count.
        """
        known = labels >= 0
        labels, guesses = labels[known], logits[known].topk(self.k, dim=1).indices
        classes = len(self.among_k)
        cells = (labels * classes + guesses[:, 0]).bincount(minlength=classes * classes)
        self.confusion += cells.view(classes, classes)
        right = labels[(guesses == labels[:, None]).any(1)]
        self.among_k += right.bincount(minlength=classes)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Counts (truth, first guess) and, by class, images with the truth among the k guesses."""
        return self.confusion, self.among_k
