"""Top-k accuracy as ImageNet reports it."""

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
