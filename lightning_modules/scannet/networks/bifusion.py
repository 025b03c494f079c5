"""BiFusion: CLIP's view of the image meets the points, point by point.

    f2 = head2d(patches of the image) at each point's pixel     f3 = head3d(backbone)
    f2, f3 = FiLM by the geometric code;  fused = gate(f2, f3)

After Xin200203/3D_Reconstruction, without the defects listed in its wing's tests. Fused features go
on to the pooling and the decoder; with length 1 they are a space shared with the image.

Shapes: B samples, P points of all of them, C width of the fused space, D width of the backbone.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import Recorded
from lightning_modules.scannet.networks.clip_trunk import CLIPTrunk, sample_patches
from lightning_modules.scannet.networks.fusion_gates import EnhancedGate, LiteGate
from lightning_modules.scannet.networks.geometry_code import (
    GEOMETRY_CHANNELS,
    GeometryMode,
    geometry_code,
)
from lightning_modules.scannet.networks.local_attention import BallAttention, PatchAttention


class View(NamedTuple):
    """What the image says about the points, all before augmentation.

    Args:
        image: Normalised with CLIP's mean and deviation, (B, 3, H, W).
        uv: Pixel of each point, centres at integers, (P, 2).
        uv_valid: Whether the point is in the image, (P,).
        size: Width and height of the image that `uv` refers to, (B, 2).
        xyz: Places in metres, (P, 3).
        pose: Camera to the world of `xyz`, (B, 4, 4).
    """

    image: Tensor
    uv: Tensor
    uv_valid: Tensor
    size: Tensor
    xyz: Tensor
    pose: Tensor


@dataclass(frozen=True)
class Fused:
    """What came of both branches.

    Args:
        features: (P, C).
        image: Features of the points' pixels before FiLM, length 1, (P, C).
        points: Features of the points before FiLM, length 1, (P, C).
        share: Of the image in each point, (P,).
        valid: Points with a pixel, (P,).
    """

    features: Tensor
    image: Tensor
    points: Tensor
    share: Tensor
    valid: Tensor

    @property
    def unified(self) -> Tensor:
        """Fused features of length 1, (P, C)."""
        return _unit(self.features)


class BiFusion(Recorded, nn.Module):
    """Fuses features of points with those of their pixels.

    Args:
        trunk: Image encoder, e.g. `CLIPTrunk`.
        in_channels: Width D of the backbone.
        channels: Width C.
        gate: `lite` looks at a point's own features, `enhanced` at neighbours and geometry too.
        geometry: Geometric code relative to the frame's size, or in metres as in the reference.
        dropout: In both heads, in [0, 1).
        patch_attention: Let the patches of an image look at each other once more.
        ball_attention: Let points look at a ball around them.
    """

    def __init__(
        self,
        trunk: nn.Module,
        in_channels: int = 96,
        channels: int = 256,
        gate: Literal["lite", "enhanced"] = "lite",
        geometry: GeometryMode = "relative",
        dropout: float = 0.1,
        patch_attention: bool = False,
        ball_attention: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.channels = in_channels, channels
        self.geometry: GeometryMode = geometry
        self.trunk = trunk
        width = int(getattr(trunk, "dim"))  # noqa: B009
        self.head2d = ImageHead(width, 2 * channels, channels, dropout)
        self.head3d = PointHead(in_channels, channels, dropout)
        self.pe_mlp = nn.Sequential(nn.Linear(GEOMETRY_CHANNELS, GEOMETRY_CHANNELS), nn.ReLU())
        self.film = FiLM(GEOMETRY_CHANNELS, channels)
        self.gate = (EnhancedGate if gate == "enhanced" else LiteGate)(channels)
        self.patch_attention = PatchAttention(channels) if patch_attention else nn.Identity()
        self.ball_attention = BallAttention(channels) if ball_attention else None

    @classmethod
    def embedded(cls) -> "BiFusion":
        """A small one, with a random image encoder that trains."""
        return cls(CLIPTrunk(dim=64, depth=2, num_heads=4, frozen_blocks=0))

    def forward(self, x: Tensor, view: View, sample: Tensor, superpoint: Tensor) -> Fused:
        """Fuses.

        Args:
            x: Features of the backbone, (P, D).
            view: The images and where the points are in them.
            sample: (P,).
            superpoint: Numbered through the batch, (P,).
        """
        patches = self.patch_attention(self.head2d(self.trunk(view.image)))
        image = _unit(sample_patches(patches, view.uv, view.size, sample))
        points = self.head3d(x)
        if self.ball_attention is not None:
            points = self.ball_attention(points, view.xyz, sample)
        points = _unit(points)
        code = geometry_code(view.xyz, superpoint, sample, view.pose, self.geometry)
        seen, shaped = self.film(self.pe_mlp(code.to(x.dtype)), image, points)
        features, share = self.gate(
            _unit(seen),
            _unit(shaped),
            view.uv_valid,
            sample,
            len(view.image),
            view.xyz,
            view.pose[:, :3, 3],
        )
        # Channels of a vector of length 1 are so small that they would drown in the shapes that the
        # pooling adds, and all queries would start alike: they go on at a backbone's scale.
        features = features * self.channels**0.5
        return Fused(features, image, points, share.squeeze(1), view.uv_valid)


class ImageHead(nn.Module):
    """Patch features (..., D) to (..., C)."""

    def __init__(self, width: int, hidden: int, channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, hidden),
            nn.Dropout(dropout),
            nn.GELU(),
            nn.Linear(hidden, channels),
        )
        _xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Projects."""
        out: Tensor = self.projection(x)
        return out


class PointHead(nn.Module):
    """Features of points (P, D) to (P, C)."""

    def __init__(self, width: int, channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(width, channels),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, channels),
            nn.BatchNorm1d(channels),
        )
        for layer in self.projection:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Projects."""
        out: Tensor = self.projection(x)
        return out


class FiLM(nn.Module):
    """Scales and shifts both branches by the geometric code; nearly the identity at the start."""

    def __init__(self, code: int, channels: int) -> None:
        super().__init__()
        self.pe_to_film = nn.Sequential(
            nn.Linear(code, 2 * code), nn.SiLU(), nn.Linear(2 * code, 2 * channels)
        )
        _xavier(self)
        with torch.no_grad():
            last = self.pe_to_film[2]
            assert isinstance(last, nn.Linear)
            last.weight *= 0.01

    def forward(self, code: Tensor, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """(1 + scale) f + shift for both features (P, C)."""
        scale, shift = self.pe_to_film(code).chunk(2, 1)
        return (1 + scale) * image + shift, (1 + scale) * points + shift


def _unit(x: Tensor) -> Tensor:
    # In float32: squares of small features vanish in half precision.
    return F.normalize(x.float(), dim=1, eps=1e-8).to(x.dtype)


def _xavier(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
