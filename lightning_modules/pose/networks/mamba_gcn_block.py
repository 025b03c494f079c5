"""Skeleton graph, bidirectional Mamba over time and an MLP in one block, for poses.

    s = x + drop_path(scale_1 dropout(graph(norm1(x))))          joints of a frame
    t = s + drop_path(scale_2 mamba(norm2(s)))                   frames of a joint
    y = t + drop_path(scale_3 mlp(norm3(t)))

No published model is this block; Pose Magic (arXiv 2408.02922) and HGMamba are its relatives. It
starts as nearly the identity and does not know the length of a clip. x is (B, T, J, C).
"""

import torch
from torch import Tensor, nn

from blocks import BiMamba, DropPath, Mamba
from blocks.geometry.skeleton import H36M, Skeleton
from blocks.graph import propagate
from blocks.mlp import Mlp
from lightning_modules.pose.networks.metaformer import along


class SkeletonGraph(nn.Module):
    """Graph convolution over the joints of a frame, (B', J, C) to the same.

        relu(BatchNorm((D^-1/2 (A + I) D^-1/2 + B) V(x) + U(x)))

    A is the skeleton, B a learned correction that starts at 0. Batch normalisation counts per
    joint.

    Args:
        dim: Width C.
        skeleton: Joints and bones.
    """

    graph: Tensor

    def __init__(self, dim: int, skeleton: Skeleton = H36M) -> None:
        super().__init__()
        joints = len(skeleton.names)
        self.U, self.V = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.batch_norm = nn.BatchNorm1d(joints)
        self.correction = nn.Parameter(torch.zeros(joints, joints))
        identity = torch.eye(joints)
        A = propagate(skeleton.adjacency() + identity, identity)
        self.register_buffer("graph", A, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the joints of (B', J, C)."""
        mixed = (self.graph + self.correction).to(x.dtype) @ self.V(x) + self.U(x)
        return torch.relu(self.batch_norm(mixed))


class MambaGCNBlock(nn.Module):
    """The block of the head of this file.

    Args:
        dim: Width C.
        d_inner: Inner width of the scan.
        dropout: After the graph convolution.
        drop_path: Probability of dropping a branch for a sample.
        causal: Whether the scan runs forward only.
        mlp_ratio: Inner width of the MLP as a multiple of C.
        layer_scale: Start of the factors per channel.
        skeleton: Joints and bones.
    """

    def __init__(
        self,
        dim: int,
        d_inner: int = 256,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        causal: bool = False,
        mlp_ratio: float = 2,
        layer_scale: float = 1e-5,
        skeleton: Skeleton = H36M,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.graph = SkeletonGraph(dim, skeleton)
        self.dropout = nn.Dropout(dropout)
        self.mamba = temporal_mixer(dim, d_inner, causal)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))
        self.drop_path = DropPath(drop_path)
        self.scale_1, self.scale_2, self.scale_3 = (
            nn.Parameter(torch.full((dim,), layer_scale)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, T, J, C)."""
        graph = self.dropout(along("joints", self.graph, self.norm1(x)))
        x = x + self.drop_path(self.scale_1 * graph)
        x = x + self.drop_path(self.scale_2 * along("frames", self.mamba, self.norm2(x)))
        x = x + self.drop_path(self.scale_3 * self.mlp(self.norm3(x)))
        return x


def temporal_mixer(dim: int, d_inner: int, causal: bool, d_state: int = 16) -> Mamba | BiMamba:
    """A scan over frames: forward only, so that it can be fed frame by frame, or both ways."""
    mixer = Mamba if causal else BiMamba
    return mixer(dim, d_inner=d_inner, d_state=d_state)
