"""A classifier around a trunk: the least that makes tokens of images and reads classes from them.

Axes: B samples, E width.
"""

import torch
from torch import Tensor, nn

from lightning_modules.trunk import TrunkNetwork
from lightning_modules.vision.networks.patch_embed import PatchEmbed


class TrunkClassifier(TrunkNetwork):
    """Images (B, 3, H, W) to logits (B, classes): patches, trunk, mean, linear.

    Args:
        img_size: Height and width in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        num_classes: Classes.
        dim: Width E of the trunk.
        stride: Step between patches in pixels; None is `patch_size`.
        trunk: Of its own; None borrows that of `CoTraining`.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_classes: int = 1000,
        dim: int = 192,
        stride: int | None = None,
        trunk: nn.Module | None = None,
    ) -> None:
        super().__init__(dim, trunk)
        self.num_classes = num_classes
        self.patch_embed = PatchEmbed(img_size, patch_size, stride or patch_size, 3, dim)
        self.img_size = self.patch_embed.img_size
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches, dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.head = nn.Linear(dim, num_classes)

    def no_weight_decay(self) -> set[str]:
        """Positions."""
        return {"pos_embed"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        tokens = self.mixed(self.patch_embed(images) + self.pos_embed)
        out: Tensor = self.head(tokens.mean(1))
        return out
