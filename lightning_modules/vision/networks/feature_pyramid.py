"""Maps of four sizes from a plain encoder, for detection and segmentation heads.

A plain encoder has one resolution, 1 / S of the image (S = its stride). As in ViTDet (arXiv
2203.16527) and the detectors of hustvl/Vim, its map is enlarged 4 and 2 times, kept, and halved;
each then goes through a 1x1 and a 3x3 convolution with norms. Images (B, 3, H, W) become maps
(B, out_dim, H / s, W / s) for s in S / 4, S / 2, S, 2 S.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError


class FeaturePyramid(Recorded, nn.Module):
    """Backbone of dense heads around any plain network with `forward_intermediates`.

    Args:
        network: `VisionMamba`, `LegacyViT`, a ViT of timm ...; its classifier is taken off.
        indices: Blocks to read: one for all four scales (`null` = the last, as ViTDet), or one a
            scale from the largest map to the smallest (Vim's segmentation: 5, 11, 17, 23).
        out_dim: Channels of every map.
        norm: Apply the network's final norm to what is read.
    """

    scales: ClassVar[tuple[float, ...]] = (4, 2, 1, 0.5)

    def __init__(
        self,
        network: nn.Module,
        indices: Sequence[int] | None = None,
        out_dim: int = 256,
        norm: bool = False,
    ) -> None:
        super().__init__()
        given = [-1] if indices is None else list(indices)
        if len(given) not in {1, len(self.scales)}:
            raise SuiteError(
                expected=f"one block for all maps, or {len(self.scales)}",
                found=f"{given}",
                where="FeaturePyramid(indices=...)",
                cure="use [-1], or [5, 11, 17, 23] for 24 blocks",
            )
        stages = getattr(network, "feature_info", None) or []
        has_maps = callable(getattr(network, "forward_intermediates", None))
        if not has_maps or len({stage["num_chs"] for stage in stages}) != 1:
            raise SuiteError(
                expected="a network of one resolution with timm's forward_intermediates",
                found=type(network).__name__,
                where="FeaturePyramid(network=...)",
                cure="use VisionMamba, LegacyViT or one of timm's ViTs; a VMamba is a pyramid "
                "already, of which forward_intermediates gives the maps",
            )
        self.network: Any = network
        remove: Any = network.reset_classifier
        remove(0)
        self.indices, self.norm = [index % len(stages) for index in given], norm
        stage = stages[self.indices[-1]]
        dim = int(stage["num_chs"])
        self.strides = [stage["reduction"] / scale for scale in self.scales]
        self.out_dim = out_dim
        resize: list[Callable[[], list[nn.Module]]] = [
            lambda: [
                _twice(dim, dim // 2),
                MapNorm(dim // 2),
                nn.GELU(),
                _twice(dim // 2, dim // 4),
            ],
            lambda: [_twice(dim, dim // 2)],
            lambda: [nn.Identity()],
            lambda: [nn.MaxPool2d(2, 2)],
        ]
        self.maps = nn.ModuleList(
            nn.Sequential(
                *make(),
                nn.Conv2d(width, out_dim, 1, bias=False),
                MapNorm(out_dim),
                nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False),
                MapNorm(out_dim),
            )
            for make, width in zip(resize, (dim // 4, dim // 2, dim, dim), strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps of images (B, 3, H, W), from the largest to the smallest."""
        found = dict(
            zip(
                sorted(set(self.indices)),
                self.network.forward_intermediates(
                    images,
                    indices=sorted(set(self.indices)),
                    norm=self.norm,
                    stop_early=True,
                    intermediates_only=True,
                ),
                strict=True,
            )
        )
        sources = self.indices * (len(self.scales) // len(self.indices))
        return [make(found[index]) for make, index in zip(self.maps, sources, strict=True)]

    def group_matcher(self, coarse: bool = False) -> Callable[[str], Any]:
        """The network's layers; everything above it is head (timm's contract)."""
        from timm.models import group_parameters

        matcher = self.network.group_matcher(coarse=coarse)
        layers = group_parameters(self.network, matcher, reverse=True)
        above = max(layers.values()) + 1
        return lambda name: layers.get(name.removeprefix("network."), above)


class MapNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each position."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias)
        return y.permute(0, 3, 1, 2)


def _twice(dim: int, out_dim: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(dim, out_dim, kernel_size=2, stride=2)
