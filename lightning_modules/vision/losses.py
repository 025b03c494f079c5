"""Training losses of classifiers: soft targets, sigmoids, two agreeing passes, a teacher.

Each follows DeiT (facebookresearch/deit), which hustvl/Vim trains with.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Distillation:
    """Learning from a teacher's logits too (DeiT, arXiv 2012.12877).

    Args:
        kind: `none`; `soft`: towards the teacher's distribution; `hard`: towards its first choice.
        alpha: Share of the teacher in the loss, in 0..1.
        tau: Temperature of both distributions, for `soft`.
        teacher_weights: File of the teacher's weights: a checkpoint of ours, a foreign one or
            safetensors. Read once, when training begins.
    """

    kind: Literal["none", "soft", "hard"] = "none"
    alpha: float = 0.5
    tau: float = 1.0
    teacher_weights: str | None = None


def classification_loss(
    logits: Tensor, targets: Tensor, kind: Literal["cross_entropy", "bce"]
) -> Tensor:
    """Mean loss of a batch with soft targets.

    Args:
        logits: (B, classes).
        targets: (B, classes), rows that sum to one.
        kind: `bce` gives each class its own sigmoid, and each class above zero counts in full.
    """
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, (targets > 0).to(logits.dtype))
    return F.cross_entropy(logits.float(), targets)


def cosub_loss(logits: Tensor, targets: Tensor, kind: Literal["cross_entropy", "bce"]) -> Tensor:
    """Two passes of one batch, each towards the targets and towards the other (arXiv 2212.04884).

    Sigmoids whatever `kind` is, as in DeiT's `--cosub`.

    Args:
        logits: (2 B, classes), the passes one after the other.
        targets: (B, classes).
        kind: `bce` counts each class above zero in full, `cross_entropy` leaves targets soft.
    """
    first, second = logits.float().chunk(2)
    targets = (targets > 0).float() if kind == "bce" else targets
    pairs = (
        (first, targets),
        (second, targets),
        (first, second.detach().sigmoid()),
        (second, first.detach().sigmoid()),
    )
    losses = [F.binary_cross_entropy_with_logits(given, wanted) for given, wanted in pairs]
    return torch.stack(losses).mean()


def distillation_loss(logits: Tensor, teacher: Tensor, distillation: Distillation) -> Tensor:
    """Distance from the teacher, mean over the batch.

    Args:
        logits: (B, classes) of the student, of its distillation head where it has one.
        teacher: (B, classes).
        distillation: Kind and temperature.
    """
    logits, teacher = logits.float(), teacher.float()
    if distillation.kind == "hard":
        return F.cross_entropy(logits, teacher.argmax(dim=1))
    tau = distillation.tau
    divergence = F.kl_div(
        (logits / tau).log_softmax(1),
        (teacher / tau).log_softmax(1),
        reduction="sum",
        log_target=True,
    )
    # DeiT divides by all entries, not by images alone: classes times smaller than a mean.
    return divergence * tau**2 / logits.numel()
