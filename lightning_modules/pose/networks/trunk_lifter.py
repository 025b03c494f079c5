"""A lifter around a trunk: the least that makes tokens of key points and reads poses from them.

Axes: B clips, T frames, E width.
"""

from torch import Tensor, nn

from blocks.geometry.skeleton import H36M
from lightning_modules.trunk import TrunkNetwork


class TrunkLifter(TrunkNetwork):
    """Key points (B, T, 17, in_features) to poses (B, T, 17, 3): a token for each frame.

    Args:
        in_features: x, y and confidence of a key point.
        dim: Width E of the trunk.
        trunk: Of its own; None borrows that of `CoTraining`.
    """

    def __init__(
        self, in_features: int = 3, dim: int = 192, trunk: nn.Module | None = None
    ) -> None:
        super().__init__(dim, trunk)
        self.in_features = in_features
        joints = len(H36M.names)
        self.joints_embed = nn.Linear(joints * in_features, dim)
        self.head = nn.Linear(dim, joints * 3)

    def forward(self, keypoints: Tensor) -> Tensor:
        """Poses of key points."""
        keypoints = keypoints[..., : self.in_features]
        tokens = self.mixed(self.joints_embed(keypoints.flatten(2)))
        out: Tensor = self.head(tokens)
        return out.view(*keypoints.shape[:3], 3)
