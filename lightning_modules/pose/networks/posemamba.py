"""PoseMamba (Huang et al., 2024), with the keys of nankingjing/PoseMamba.

    h = embed(x) + positions of joints
    h = norm_t(TTE_i(norm_s(STE_i(h))))      for i = 0 ... depth - 1; y = head(h)

where positions of frames are added after the very first norm_s.

A block is a residual scan over the grid of frames and joints in four directions and a residual
MLP. Two directions walk frame by frame, over features to which those of a neighbour towards the
root are added; two walk joint by joint. Upstream's own backward pass forgets the added neighbours;
this is the true gradient.

Shapes: B clips, T frames, J = 17 joints, C width `dim`, D inner width, L = T J, K = 4 directions.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import DropPath, Recorded
from blocks.drop_path import drop_path_rates
from blocks.errors import SuiteError
from blocks.grid_layers import DepthwiseConv2d
from blocks.mamba import decay
from blocks.mlp import Mlp
from blocks.scan.operator import path_scan
from blocks.selective_paths import select_paths
from blocks.ss2d import initial_scan
from blocks.upstream import renamed

_JOINTS, _PATHS, _EPS = 17, ">v<^", 1e-6
# The joint whose features are added to each one's; the thorax for both shoulders.
_NEIGHBOURS = (0, 0, 1, 2, 3, 0, 4, 5, 6, 8, 11, 12, 13, 8, 14, 15, 16)
_UPSTREAM_NAMES: dict[str, str | None] = {
    "num_frame": "num_frames",
    "embed_dim_ratio": "dim",
    "depth": "depth",
    "mlp_ratio": "mlp_ratio",
    "in_chans": "in_features",
    "d_state": "d_state",
    "ssm_ratio": "ssm_ratio",
    "drop_path_rate": "drop_path",
    "num_joints": None,
}


class PoseMamba(Recorded, nn.Module):
    """Lifts keypoints by scans over the grid of frames and joints, (B, T, 17, 2) to (B, T, 17, 3).

    Published sizes S, B, L: dim 64, 128, 128; depth 10, 10, 20; 243 frames.

    Args:
        num_frames: Clip length T.
        dim: Width C.
        depth: Pairs of blocks.
        mlp_ratio: Inner width of the MLPs as a multiple of C.
        in_features: Coordinates that are read of each keypoint: 2 leaves its confidence out.
        d_state: States per channel.
        ssm_ratio: Inner width of the scans as a multiple of C.
        drop_path: Drop rate of the last block; rises evenly from 0.
    """

    def __init__(
        self,
        num_frames: int = 243,
        dim: int = 64,
        depth: int = 10,
        mlp_ratio: float = 2,
        in_features: int = 2,
        d_state: int = 16,
        ssm_ratio: float = 2,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_frames, self.in_features = num_frames, in_features
        self.Spatial_patch_to_embedding = nn.Linear(in_features, dim)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, _JOINTS, dim))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, num_frames, dim))
        rates = drop_path_rates(depth, drop_path)

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                PoseMambaBlock(dim, mlp_ratio, d_state, ssm_ratio, rate) for rate in rates
            )

        self.STEblocks, self.TTEblocks = blocks(), blocks()
        self.Spatial_norm = nn.LayerNorm(dim, eps=_EPS)
        self.Temporal_norm = nn.LayerNorm(dim, eps=_EPS)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3))

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the network from the constructor arguments of upstream's `PoseMamba`."""
        return cls(**renamed(config, _UPSTREAM_NAMES, "PoseMamba.from_upstream"))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that keep their size: positions and the scans' own."""
        own = ("A_logs", "Ds", "dt_projs_bias", "pos_embed")
        return {name for name, _ in self.named_parameters() if name.endswith(own)}

    def forward(self, x: Tensor) -> Tensor:
        """Lifts clips.

        Args:
            x: Keypoints, (B, T, 17, in_features or more); further features are not read.

        Returns:
            Poses, (B, T, 17, 3).
        """
        frames = x.shape[1]
        if frames > self.num_frames:
            raise SuiteError(
                expected=f"at most {self.num_frames} frames, as there are temporal positions",
                found=f"{frames}",
                where="PoseMamba",
                cure="predict longer clips in windows",
            )
        h = self.Spatial_patch_to_embedding(x[..., : self.in_features]) + self.Spatial_pos_embed
        for i, (ste, tte) in enumerate(zip(self.STEblocks, self.TTEblocks, strict=True)):
            h = self.Spatial_norm(ste(h))
            if i == 0:
                h = h + self.Temporal_pos_embed[:, :frames].unsqueeze(2)
            h = self.Temporal_norm(tte(h))
        out: Tensor = self.head(h)
        return out


class PoseMambaBlock(nn.Module):
    """Residual scan and residual MLP on (B, T, J, C).

    Args:
        dim: Width C.
        mlp_ratio: Inner width of the MLP as a multiple of C.
        d_state: States per channel.
        ssm_ratio: Inner width of the scan as a multiple of C.
        drop_path: Probability of dropping a branch for a sample.
    """

    def __init__(
        self, dim: int, mlp_ratio: float, d_state: int, ssm_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(dim, eps=_EPS), nn.LayerNorm(dim, eps=_EPS)
        self.op = BodyScan(dim, d_state, ssm_ratio)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, T, J, C)."""
        x = x + self.drop_path(self.op(self.norm(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class BodyScan(nn.Module):
    """Four scans over the grid of frames and joints, (B, T, J, C) to the same.

    Args:
        dim: Width C.
        d_state: States per channel.
        ssm_ratio: Inner width D as a multiple of C.
    """

    neighbours: Tensor

    def __init__(self, dim: int, d_state: int, ssm_ratio: float) -> None:
        super().__init__()
        inner, rank = int(ssm_ratio * dim), -(-dim // 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = DepthwiseConv2d(inner, 3, bias=True)
        self.x_proj_weight = nn.Parameter(
            torch.stack([nn.Linear(inner, rank + 2 * d_state).weight.detach() for _ in _PATHS])
        )
        weight, bias, A_logs = initial_scan(
            "v0", inner, rank, d_state, 0.001, 0.1, "random", 1.0, 1e-4
        )
        self.dt_projs_weight, self.dt_projs_bias = nn.Parameter(weight), nn.Parameter(bias)
        self.A_logs = nn.Parameter(A_logs)
        self.Ds = nn.Parameter(torch.ones(len(_PATHS) * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.register_buffer("neighbours", torch.tensor(_NEIGHBOURS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, T, J, C)."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv2d(x))
        by_frame = x + x[:, :, self.neighbours]
        # One stream per direction, each where its grid lies: (B, K, L, D).
        u = torch.stack((by_frame, x, by_frame, x), 1).flatten(2, 3).mT
        delta, B, C = select_paths(u, self.x_proj_weight, self.dt_projs_weight)
        each = (len(_PATHS), u.shape[2])
        y, _ = path_scan(
            u, delta, decay(self.A_logs).view(*each, -1), B, C, self.Ds.view(each), None,
            self.dt_projs_bias, True, paths=_PATHS, width=_JOINTS,
        )  # fmt: skip
        y = self.out_norm(y.mT.view(x.shape)).to(z.dtype)
        out: Tensor = self.out_proj(y * F.silu(z))
        return out
