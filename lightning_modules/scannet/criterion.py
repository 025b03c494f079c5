"""Losses of the segmenter (filaPro/oneformer3d and xuxw98/ESAM), in float32.

    instances, of each output: 0.5 cross-entropy + BCE + Dice of the matched masks
    semantics, of the last one: 0.5 cross-entropy of the queries' superpoints

Terms by name: `loss_sem`, `loss_cls`, `loss_mask` (BCE + Dice), summed over the outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.scannet.matching import Matcher, match
from lightning_modules.scannet.networks.query_decoder import Decoded
from lightning_modules.scannet.targets import Targets


@dataclass(frozen=True)
class InstanceLoss:
    """Weights of the losses, and the rule that assigns queries.

    Args:
        classes: Weight of the cross-entropy of classes.
        bce: Weight of the binary cross-entropy of masks.
        dice: Weight of the Dice loss of masks.
        semantic: Weight of the cross-entropy of superpoints' classes.
        no_object: Weight of the class "no object" in the cross-entropy, in 0..1.
        matcher: `sparse`: the best query within each instance; `hungarian`: one to one.
        dice_mode: `mean`: over samples; `upstream`: four times that in the last output, and 4 / B
            times in earlier ones, B samples a batch, as the published runs had it.
    """

    classes: float = 0.5
    bce: float = 1.0
    dice: float = 1.0
    semantic: float = 0.5
    no_object: float = 0.1
    matcher: Matcher = "sparse"
    dice_mode: Literal["upstream", "mean"] = "upstream"

    def terms(
        self,
        decoded: Sequence[Sequence[Decoded]],
        targets: Sequence[Targets],
        queries: Sequence[Tensor | None],
    ) -> dict[str, Tensor]:
        """Losses by name.

        Args:
            decoded: Outputs of the decoder: per sample, per depth.
            targets: Ground truth per sample.
            queries: Superpoints that became queries, per sample; None for all.
        """
        with torch.autocast(decoded[0][0].masks.device.type, enabled=False):
            return self._terms(decoded, targets, queries)

    def _terms(
        self,
        decoded: Sequence[Sequence[Decoded]],
        targets: Sequence[Targets],
        queries: Sequence[Tensor | None],
    ) -> dict[str, Tensor]:
        depths = len(decoded[0])
        per_depth = []
        for depth in range(depths):
            outputs = [sample[depth] for sample in decoded]
            dice_factor = self._dice_factor(len(outputs), last=depth == depths - 1)
            per_depth.append(self._instance_terms(outputs, targets, queries, dice_factor))
        cls, mask = torch.stack(per_depth).sum(0)
        semantic = [
            _semantic_loss(sample[-1], t, q)
            for sample, t, q in zip(decoded, targets, queries, strict=True)
        ]
        return {
            "loss_sem": self.semantic * torch.stack(semantic).mean(),
            "loss_cls": cls,
            "loss_mask": mask,
        }

    def _dice_factor(self, samples: int, last: bool) -> float:
        if self.dice_mode == "mean":
            return 1.0
        # Upstream divides the sum over samples by B once too often, and multiplies by 4 to mend it
        # for its batch of 4; the last output escapes the division.
        return 4.0 if last else 4.0 / samples

    def _instance_terms(
        self,
        outputs: Sequence[Decoded],
        targets: Sequence[Targets],
        queries: Sequence[Tensor | None],
        dice_factor: float,
    ) -> Tensor:
        """Losses of classes and of masks at one depth, (2,)."""
        classes, bces, dices = [], [], []
        for output, target, chosen in zip(outputs, targets, queries, strict=True):
            query, instance = match(output, target, chosen, self.matcher)
            classes.append(self._class_loss(output.classes.float(), target.labels, query, instance))
            if not len(target.labels):
                continue  # Nothing to segment: only the classes say so.
            logits = output.masks[query].float()
            truth = target.masks(output.over_points)[instance].float()
            matched = len(query) > 0
            bce = F.binary_cross_entropy_with_logits(logits, truth) if matched else None
            bces.append(_zero(output.masks) if bce is None else bce)
            dices.append(dice_loss(logits, truth) if matched else _zero(output.masks))
        mask = _mean(bces, outputs) * self.bce + _mean(dices, outputs) * self.dice * dice_factor
        return torch.stack((self.classes * torch.stack(classes).mean(), mask))

    def _class_loss(
        self, logits: Tensor, labels: Tensor, query: Tensor, instance: Tensor
    ) -> Tensor:
        nothing = logits.shape[1] - 1
        wanted = torch.full((len(logits),), nothing, device=logits.device)
        wanted[query] = labels[instance]
        weight = torch.ones(nothing + 1, device=logits.device)
        weight[nothing] = self.no_object
        return F.cross_entropy(logits, wanted, weight)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over masks of 1 - Dice, of logits (M, N) against masks (M, N)."""
    p = logits.sigmoid()
    overlap = 2 * (p * truth).sum(1)
    return (1 - (overlap + 1) / (p.sum(1) + truth.sum(1) + 1)).mean()


def _semantic_loss(output: Decoded, target: Targets, queries: Tensor | None) -> Tensor:
    assert output.semantic is not None
    # The column of "ignored" is never trained nor read.
    logits = output.semantic[:, :-1].float()
    wanted = target.semantic if queries is None else target.semantic[queries]
    ignored = logits.shape[1]
    total = F.cross_entropy(logits, wanted, ignore_index=ignored, reduction="sum")
    return total / (wanted != ignored).sum().clamp(min=1)


def _mean(values: list[Tensor], outputs: Sequence[Decoded]) -> Tensor:
    """Mean over samples with instances; without any, a zero that still reaches the weights."""
    if values:
        return torch.stack(values).mean()
    return torch.stack([_zero(output.masks) for output in outputs]).sum()


def _zero(x: Tensor) -> Tensor:
    """0 with a gradient of zeros, so that no process of several lacks a parameter's gradient."""
    return x.float().sum() * 0.0
