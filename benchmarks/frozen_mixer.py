"""FROZEN. The yardstick of the bidirectional mixer: all of it but the scan, in plain PyTorch.

How much does the scan add to a Vim mixer (hustvl/Vim, "v2")? To answer, everything else must stay
as a plain implementation has it, flips included. THIS FILE MUST NEVER BE OPTIMISED OR CHANGED, or
figures of different dates cannot be compared; it shares no code with `blocks` for the same reason.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenMixer(nn.Module):
    """A Vim mixer whose scan is one cheap line, (B, L, E) to (B, L, E).

    Kept: shared `in_proj`, and for each direction the flip of x and z, nn.Conv1d (depthwise, causal
    by padding and cutting) with silu, `x_proj`, `dt_proj` with softplus, the gate, the flip back;
    then `out_proj`. In place of the scan stands

        y = u * (delta * mean_n(A) + D) + mean_n(B * C)

    which touches every operand of the scan once, so that gradients flow into all of them.

    Args:
        dim: Width E; the inner width D is twice that.
        d_state: States N.
        d_conv: Width of the convolutions.
    """

    def __init__(self, dim: int = 192, d_state: int = 16, d_conv: int = 4) -> None:
        super().__init__()
        inner, rank = 2 * dim, math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.directions = nn.ModuleList(_Direction(inner, rank, d_state, d_conv) for _ in range(2))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, L, E)."""
        xz = self.in_proj(x).mT
        forward, backward = self.directions
        y = forward(xz) + backward(xz.flip(-1)).flip(-1)
        out: Tensor = self.out_proj(y.mT)
        return out


class _Direction(nn.Module):
    """What a direction has of its own."""

    def __init__(self, inner: int, rank: int, d_state: int, d_conv: int) -> None:
        super().__init__()
        self.sizes = [rank, d_state, d_state]
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))

    def forward(self, xz: Tensor) -> Tensor:
        x, z = xz.chunk(2, dim=1)
        u = F.silu(self.conv1d(x)[..., : x.shape[-1]])
        dt, B, C = self.x_proj(u.mT).split(self.sizes, dim=-1)
        delta = F.softplus(self.dt_proj(dt)).mT
        A = -torch.exp(self.A_log).mean(1, keepdim=True)
        y: Tensor = u * (delta * A + self.D[:, None]) + (B * C).mean(-1)[:, None]
        return y * F.silu(z)
