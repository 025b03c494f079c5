"""Heads of retrieval: from a network's features to identities in training, to a descriptor after.

A head is built in two steps, for its sizes are known at two times: `attach(width, patch_width)`
when it meets its network, `set_identities(P)` when the training data says how many there are.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import kaiming_normal_, normal_, zeros_

from blocks import Recorded
from blocks.errors import SuiteError


@dataclass(frozen=True)
class HeadOutput:
    """What the losses need, by part of the image; one part is the whole image.

    Args:
        features: (B, parts, F) for metric losses.
        logits: (B, parts, P) over the training identities.
        descriptor: (B, parts, F) by which images are compared, not normalised.
    """

    features: Tensor
    logits: Tensor
    descriptor: Tensor


class BNNeckHead(Recorded, nn.Module):
    """Batch norm between the metric loss and the classifier (arXiv 1903.07071).

    The metric loss sees the feature before the neck, the classifier, without bias, the one after.

    Args:
        feature: Which of them describes an image: `before` as TransReID tests, `after` as fast-reid
            and the bag of tricks do.
        classifier_std: Deviation of the classifier's initial weights; 0.01 in fast-reid.
    """

    def __init__(
        self, feature: Literal["before", "after"] = "after", classifier_std: float = 0.001
    ) -> None:
        super().__init__()
        self.feature, self.classifier_std = feature, classifier_std

    def attach(self, width: int, patch_width: int) -> None:
        """Makes the layers for features (B, width); patches are not looked at."""
        self.width = width
        self.neck = nn.BatchNorm1d(width)
        self.neck.bias.requires_grad_(False)  # The classifier's hyperplanes go through the origin.

    def set_identities(self, count: int) -> None:
        """Makes the classifier over so many identities."""
        self.classifier = nn.Linear(self.width, count, bias=False)
        normal_(self.classifier.weight, std=self.classifier_std)

    @property
    def identities(self) -> int | None:
        """Outputs of the classifier; None before there is one."""
        return self.classifier.out_features if "classifier" in self._modules else None

    def describe(self, pooled: Tensor, patches: Tensor) -> Tensor:
        """Descriptor (B, 1, width) of a pooled feature (B, width)."""
        found: Tensor = pooled if self.feature == "before" else self.neck(pooled)
        return found[:, None]

    def forward(self, pooled: Tensor, patches: Tensor) -> HeadOutput:
        """Everything at once, for training.

        Args:
            pooled: (B, width).
            patches: Not looked at.
        """
        after = self.neck(pooled)
        descriptor = pooled if self.feature == "before" else after
        logits = self.classifier(after)
        return HeadOutput(pooled[:, None], logits[:, None], descriptor[:, None])


class FSRAHead(Recorded, nn.Module):
    """Heads of FSRA (arXiv 2201.09206): the image, and parts of like activation.

    Each part: Linear - BatchNorm - [LeakyReLU 0.1] - Dropout - classifier; the feature is what the
    classifier sees. Parts are groups of patches, equally large, in order of their mean activation.

    Args:
        parts: Groups of patches beside the whole image, upstream's `--block`; 0 = none.
        dim: Width of each part's feature.
        dropout: Before the classifier.
        leaky_relu: Add the activation, off upstream.
    """

    def __init__(
        self, parts: int = 3, dim: int = 512, dropout: float = 0.5, leaky_relu: bool = False
    ) -> None:
        super().__init__()
        self.parts, self.dim = parts, dim
        self.dropout, self.leaky_relu = dropout, leaky_relu
        self.identities: int | None = None

    def attach(self, width: int, patch_width: int) -> None:
        """Makes the layers for features (B, width) and patches (B, M, patch_width)."""
        widths = [width] + [patch_width] * self.parts
        self.embed = nn.ModuleList(self._embedding(width) for width in widths)

    def set_identities(self, count: int) -> None:
        """Makes the classifiers over so many identities."""
        self.identities = count
        self.classifiers = nn.ModuleList(nn.Linear(self.dim, count) for _ in self.embed)
        for classifier in self.classifiers:
            assert isinstance(classifier, nn.Linear)
            normal_(classifier.weight, std=0.001)
            zeros_(classifier.bias)

    def describe(self, pooled: Tensor, patches: Tensor) -> Tensor:
        """Descriptor (B, parts, dim), the whole image first."""
        inputs = [pooled, *(self._groups(patches) if self.parts else ())]
        return torch.stack([part(x) for part, x in zip(self.embed, inputs, strict=True)], dim=1)

    def forward(self, pooled: Tensor, patches: Tensor) -> HeadOutput:
        """Everything at once, for training.

        Args:
            pooled: (B, width).
            patches: (B, M, patch_width).
        """
        found = self.describe(pooled, patches)
        logits = [
            classifier(x) for classifier, x in zip(self.classifiers, found.unbind(1), strict=True)
        ]
        return HeadOutput(found, torch.stack(logits, dim=1), found)

    def _groups(self, patches: Tensor) -> list[Tensor]:
        """Means (B, patch_width) of equal groups of patches, the most active first."""
        size = patches.shape[1] // self.parts
        if size == 0:
            raise SuiteError(
                expected=f"at least {self.parts} patches, one for each part",
                found=f"{patches.shape[1]}",
                where="model.init_args.head.init_args.parts",
                cure="take fewer parts, larger images or smaller patches",
            )
        order = patches.mean(dim=2).argsort(dim=1, descending=True, stable=True)
        ordered = patches.gather(1, order[:, :, None].expand_as(patches))
        # Upstream gives the patches that are left over to the last group.
        starts = range(0, size * self.parts, size)
        ends = [*starts[1:], patches.shape[1]]
        return [ordered[:, a:b].mean(dim=1) for a, b in zip(starts, ends, strict=True)]

    def _embedding(self, width: int) -> nn.Sequential:
        linear = nn.Linear(width, self.dim)
        kaiming_normal_(linear.weight, mode="fan_out")
        zeros_(linear.bias)
        norm = nn.BatchNorm1d(self.dim)
        normal_(norm.weight, mean=1.0, std=0.02)
        activation = [nn.LeakyReLU(0.1)] if self.leaky_relu else []
        return nn.Sequential(linear, norm, *activation, nn.Dropout(self.dropout))


def normalise(descriptor: Tensor) -> Tensor:
    """Flat unit vectors (B, parts * F) of descriptors (B, parts, F), every part of equal weight."""
    unit: Tensor = F.normalize(descriptor.float(), dim=2) / descriptor.shape[1] ** 0.5
    return unit.flatten(1)
