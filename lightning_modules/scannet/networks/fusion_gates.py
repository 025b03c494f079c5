"""How much of each point's feature comes from the image: the gates of BiFusion.

    a = sigmoid(logit of [f2, f3]), 0.1 where no pixel is seen;  mix = a f2 + (1 - a) f3
    fused = mix * sigmoid(SE(mean of mix over the sample))

`LiteGate` follows Xin200203/3D_Reconstruction with its keys; `EnhancedGate` adds a logit smoothed
over neighbours and one from place and surface normal. P points of B samples, C channels.
"""

import torch
from torch import Tensor, nn

from lightning_modules.scannet.networks.neighbours import nearest_within
from lightning_modules.scannet.networks.superpoint_pooling import pooled

# Share of the image where the point is not in it.
UNSEEN = 0.1
# Share of either branch until the gate is trusted.
EVEN = 0.5


class LiteGate(nn.Module):
    """Gate by the point's own two features; 41,361 parameters at 256 channels.

    Args:
        channels: Width C.
        hidden: Width inside the gate.
        reduction: Of the squeeze-and-excitation.
    """

    learned: Tensor

    def __init__(self, channels: int = 256, hidden: int = 64, reduction: int = 16) -> None:
        super().__init__()
        self.point_mlp = nn.Sequential(
            nn.Linear(2 * channels, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        squeezed = channels // reduction
        self.se_module = nn.Sequential(
            nn.Identity(),  # The mean over a sample is taken outside: samples lie in one tensor.
            nn.Conv1d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv1d(squeezed, channels, 1),
            nn.Sigmoid(),
        )
        # Travels in checkpoints: evaluated is what was trained, before the warm-up's end and after.
        self.register_buffer("learned", torch.tensor(True))

    def forward(
        self,
        image: Tensor,
        points: Tensor,
        valid: Tensor,
        sample: Tensor,
        samples: int,
        xyz: Tensor,
        camera: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Fuses.

        Args:
            image: Features of the points' pixels, (P, C).
            points: Features of the points, (P, C).
            valid: Whether a point has a pixel, (P,).
            sample: (P,).
            samples: Number of samples B.
            xyz: Places in metres, (P, 3).
            camera: Places of the cameras, (B, 3).

        Returns:
            Fused features (P, C) and shares of the image (P, 1).
        """
        share = torch.sigmoid(self.logit(image, points, sample, xyz, camera))
        # Not an if: the gate's parameters then have gradients, of 0, in the warm-up too.
        share = torch.where(self.learned, share, EVEN)
        share = torch.where(valid.unsqueeze(1), share, UNSEEN)
        mix = share * image + (1 - share) * points
        mean = pooled(mix, sample, samples, "mean")
        return mix * self.se_module(mean.unsqueeze(-1)).squeeze(-1)[sample], share

    def logit(
        self, image: Tensor, points: Tensor, sample: Tensor, xyz: Tensor, camera: Tensor
    ) -> Tensor:
        """Logits (P, 1) of the shares."""
        out: Tensor = self.point_mlp(torch.cat((image, points), 1))
        return out


class EnhancedGate(LiteGate):
    """Gate that also looks at neighbours, and at place and surface normal.

    Args:
        channels: Width C.
        hidden: Width inside the gate.
        reduction: Of the squeeze-and-excitation.
        neighbours: Points that smooth the gate, the point itself among them.
        radius: Farthest of them, metres.
    """

    def __init__(
        self,
        channels: int = 256,
        hidden: int = 64,
        reduction: int = 16,
        neighbours: int = 16,
        radius: float = 0.15,
    ) -> None:
        super().__init__(channels, hidden, reduction)
        self.neighbours, self.radius = neighbours, radius
        self.spatial_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.geometry_mlp = nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def logit(
        self, image: Tensor, points: Tensor, sample: Tensor, xyz: Tensor, camera: Tensor
    ) -> Tensor:
        """Sum of the three logits (P, 1)."""
        hidden = self.point_mlp[:2](torch.cat((image, points), 1))
        indices, distances = nearest_within(xyz, sample, self.neighbours, self.radius)
        near = distances.isfinite().unsqueeze(-1)
        smooth = (hidden[indices] * near).sum(1) / near.sum(1).clamp(min=1)
        centre = pooled(xyz, sample, len(camera), "mean")
        span = (xyz - centre[sample]).norm(dim=1)
        span = pooled(span.unsqueeze(1), sample, len(camera), "amax").clamp(min=1e-3)
        normal = normals(xyz, indices, near, camera[sample])
        place = torch.cat(((xyz - centre[sample]) / span[sample], normal), 1)
        out: Tensor = (
            self.point_mlp[2](hidden) + self.spatial_mlp(smooth) + self.geometry_mlp(place)
        )
        return out


@torch.no_grad()
def normals(xyz: Tensor, indices: Tensor, near: Tensor, eye: Tensor) -> Tensor:
    """Unit normals (P, 3) of the plane through each point's neighbours, towards the camera.

    Args:
        xyz: (P, 3).
        indices: Neighbours, (P, K).
        near: Which of them exist, (P, K, 1).
        eye: Place of the camera of each point, (P, 3).
    """
    total = near.sum(1).clamp(min=1)
    around = xyz[indices].double() * near
    offsets = (xyz[indices].double() - (around.sum(1) / total).unsqueeze(1)) * near
    # The vector of the smallest eigenvalue; eigenvalues come in ascending order.
    normal = torch.linalg.eigh(offsets.transpose(1, 2) @ offsets).eigenvectors[..., 0].to(xyz.dtype)
    away = ((eye - xyz) * normal).sum(1, keepdim=True) < 0
    return torch.where(away, -normal, normal)
