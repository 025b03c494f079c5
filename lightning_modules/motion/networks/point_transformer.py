"""Point Transformer (Zhao et al., 2021) over a scene and its contact map, as afford-motion has it.

Four levels of N, N/4, N/16 and N/64 points: fewer points, then attention among neighbours. What the
originals do in CUDA is plain torch here; keys are those of afford-motion's
`models/scene_models/pointtransformer.py`.

Axes: B scenes, N points, K neighbours, C features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.point_sets import farthest_points, gathered, interpolated, nearest_points

_STRIDES, _NEIGHBOURS = (1, 4, 4, 4), (8, 16, 16, 16)
# Channels of the value that share a weight.
_SHARED = 8
Level = tuple[Tensor, Tensor]  # Places (B, N, 3) and features (B, N, C).


class PointEncoder(nn.Module):
    """Scene and contact to tokens, coarse to fine.

    Args:
        in_features: x, y, z and the contact features of a point.
        planes: Widths of the four levels.
        blocks: Per level, 1 (thinning) plus the number of attention blocks.
        decoder: Whether a decoder carries the coarse levels back to the fine ones.
    """

    def __init__(
        self,
        in_features: int = 9,
        planes: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (2, 2, 2, 2),
        decoder: bool = False,
    ) -> None:
        super().__init__()
        widths = (in_features, *planes)
        self.decoder = decoder
        for i in range(len(_STRIDES)):
            down = TransitionDown(widths[i], widths[i + 1], _STRIDES[i], _NEIGHBOURS[i])
            attention = [PointBlock(widths[i + 1], _NEIGHBOURS[i]) for _ in range(blocks[i] - 1)]
            self.add_module(f"enc{i + 1}", nn.Sequential(down, *attention))
        for i in range(len(_STRIDES) if decoder else 0):
            coarser = planes[i + 1] if i + 1 < len(planes) else None
            up = TransitionUp(coarser, planes[i])
            self.add_module(f"dec{i + 1}", nn.Sequential(up, PointBlock(planes[i], _NEIGHBOURS[i])))

    def forward(self, xyz: Tensor, contact: Tensor) -> list[Tensor]:
        """Features of the levels, coarsest first; of the coarsest alone without a decoder.

        Args:
            xyz: (B, N, 3), N at least 1024.
            contact: (B, N, in_features - 3).
        """
        least = _NEIGHBOURS[-1] * 4 ** (len(_STRIDES) - 1)
        if xyz.shape[1] < least:
            raise SuiteError(
                expected=f"at least {least} points, so that the coarsest level has neighbours",
                found=f"{xyz.shape[1]}",
                where="PointEncoder",
                cure="sample the scene with 8192 points, as HumanML3D's contact files do",
            )
        level: Level = xyz, torch.cat((xyz, contact), -1)
        levels: list[Level] = []
        for i in range(len(_STRIDES)):
            level = self.get_submodule(f"enc{i + 1}")(level)
            levels.append(level)
        if not self.decoder:
            return [level[1]]
        found: list[Tensor] = []
        coarse: Level | None = None
        for i in reversed(range(len(_STRIDES))):
            up, attention = self.get_submodule(f"dec{i + 1}").children()
            coarse = attention((levels[i][0], up(levels[i], coarse)))
            found.append(coarse[1])
        return found


class TransitionDown(nn.Module):
    """Fewer points, each with the maximum over its neighbours' features.

    Args:
        dim: Features before.
        width: Features after.
        stride: Points before per point after; 1 keeps them and looks at no neighbours.
        neighbours: K.
    """

    def __init__(self, dim: int, width: int, stride: int, neighbours: int) -> None:
        super().__init__()
        self.stride, self.neighbours = stride, neighbours
        self.linear = nn.Linear(dim if stride == 1 else dim + 3, width, bias=False)
        self.bn = nn.BatchNorm1d(width)

    def forward(self, level: Level) -> Level:
        """(B, N, ...) to (B, N / stride, ...)."""
        xyz, x = level
        if self.stride == 1:
            return xyz, F.relu(normed(self.bn, self.linear(x)))
        centres = gathered(xyz, farthest_points(xyz, xyz.shape[1] // self.stride))
        _, near = nearest_points(xyz, centres, self.neighbours)
        relative = gathered(xyz, near) - centres.unsqueeze(2)
        grouped = torch.cat((relative, gathered(x, near)), -1)
        return centres, F.relu(normed(self.bn, self.linear(grouped))).amax(2)


class TransitionUp(nn.Module):
    """Features of a level, with those of the next coarser one added.

    Args:
        coarser: Width of the coarser level; None at the coarsest, which adds its own mean instead.
        dim: Width of the level.
    """

    def __init__(self, coarser: int | None, dim: int) -> None:
        super().__init__()
        if coarser is None:
            self.linear1 = nn.Sequential(nn.Linear(2 * dim, dim), nn.BatchNorm1d(dim), nn.ReLU())
            self.linear2 = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        else:
            self.linear1 = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU())
            self.linear2 = nn.Sequential(nn.Linear(coarser, dim), nn.BatchNorm1d(dim), nn.ReLU())

    def forward(self, level: Level, coarse: Level | None) -> Tensor:
        """(B, N, C)."""
        xyz, x = level
        if coarse is None:
            mean = self.linear2(x.mean(1, keepdim=True)).expand_as(x)
            return _sequential(self.linear1, torch.cat((x, mean), -1))
        added = interpolated(_sequential(self.linear2, coarse[1]), coarse[0], xyz)
        return _sequential(self.linear1, x) + added


class PointBlock(nn.Module):
    """Residual attention among neighbours.

    Args:
        dim: Width C.
        neighbours: K.
    """

    def __init__(self, dim: int, neighbours: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim, bias=False)
        self.bn1 = nn.BatchNorm1d(dim)
        self.transformer2 = NeighbourAttention(dim, neighbours)
        self.bn2 = nn.BatchNorm1d(dim)
        self.linear3 = nn.Linear(dim, dim, bias=False)
        self.bn3 = nn.BatchNorm1d(dim)

    def forward(self, level: Level) -> Level:
        """Mixes (B, N, C)."""
        xyz, x = level
        y = F.relu(normed(self.bn1, self.linear1(x)))
        y = F.relu(normed(self.bn2, self.transformer2(xyz, y)))
        return xyz, F.relu(normed(self.bn3, self.linear3(y)) + x)


class NeighbourAttention(nn.Module):
    """Vector attention: a weight for each channel of C / 8, from differences of key and query.

    Args:
        dim: Width C, a multiple of 8.
        neighbours: K.
    """

    def __init__(self, dim: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.linear_q, self.linear_k, self.linear_v = (nn.Linear(dim, dim) for _ in range(3))
        self.linear_p = nn.Sequential(
            nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, dim)
        )
        width = dim // _SHARED
        self.linear_w = nn.Sequential(
            nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, width),
            nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width),
        )  # fmt: skip

    def forward(self, xyz: Tensor, x: Tensor) -> Tensor:
        """Mixes (B, N, C)."""
        q, k, v = self.linear_q(x), self.linear_k(x), self.linear_v(x)
        _, near = nearest_points(xyz, xyz, self.neighbours)
        place = _sequential(self.linear_p, gathered(xyz, near) - xyz.unsqueeze(2))
        weight = _sequential(self.linear_w, gathered(k, near) - q.unsqueeze(2) + place)
        weight = weight.softmax(2).unsqueeze(-2)
        value = gathered(v, near) + place
        shared = value.view(*value.shape[:-1], _SHARED, -1)
        return (shared * weight).sum(2).flatten(-2)


def normed(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch normalisation of the last axis of (..., C)."""
    out: Tensor = norm(x.reshape(-1, x.shape[-1])).view(x.shape)
    return out


def _sequential(layers: nn.Sequential, x: Tensor) -> Tensor:
    for layer in layers:
        x = normed(layer, x) if isinstance(layer, nn.BatchNorm1d) else layer(x)
    return x
