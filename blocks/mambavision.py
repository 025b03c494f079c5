"""The mixer of MambaVision (Hatamizadeh and Kautz, 2024), with the keys of NVlabs/MambaVision.

    x, z = silu(centred conv(in_proj(input)))
    delta, B, C = projections of x
    output = out_proj([scan(x, delta, -exp(A_log), B, C, D) ; z])

Half of the channels is scanned forward, the other half only convolved; the two are concatenated
instead of gated, so both halves see a few steps ahead and only one sees the whole past.

Shapes: B batch, L time, E outer width `dim`, D inner width expand E, of which D/2 are scanned,
N `d_state`, R `dt_rank`, W `d_conv`.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.causal_conv import causal_conv1d
from blocks.errors import SuiteError
from blocks.mamba import (
    UPSTREAM_NAMES,
    check_sequence,
    decay,
    depthwise_conv,
    init_dt_proj,
    initial_A_log,
    select,
    zero_padding,
)
from blocks.scan.dispatch import selective_scan
from blocks.upstream import renamed


class MambaVisionMixer(nn.Module):
    """A forward scan beside a convolution, (B, L, E) to (B, L, E).

    `A_log`, `D` and `dt_proj.bias` enter the scan in float32 whatever the precision around it.
    The defaults of `d_state`, `d_conv` and `expand` are those of the published models.

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel.
        d_conv: Width W of the centred convolutions; an even one looks one step further ahead.
        expand: Inner width D as a multiple of `dim`; D must be even.
        dt_rank: Rank R of the step-size projection; "auto" is ceil(dim / 16).
        dt_min: Smallest softplus(dt_proj.bias) at the start; the step counts the bias twice.
        dt_max: Largest softplus(dt_proj.bias) at the start.
        dt_init: How the weight of `dt_proj` starts: uniform in +-dt_scale R^-0.5, or constant.
        dt_scale: See `dt_init`.
        dt_init_floor: Lower clamp of the first softplus(dt_proj.bias).
        bias: Whether `in_proj` and `out_proj` have one.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 8,
        d_conv: int = 3,
        expand: float = 1,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        bias: bool = False,
    ) -> None:
        super().__init__()
        inner = int(expand * dim)
        if inner % 2:
            raise SuiteError(
                expected="an even inner width, half of it to scan",
                found=f"expand * dim = {inner}",
                where="MambaVisionMixer(dim=..., expand=...)",
                cure="make dim even",
            )
        half = inner // 2
        rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(dim, inner, bias=bias)
        self.conv1d_x = depthwise_conv(half, d_conv, bias=False)
        self.conv1d_z = depthwise_conv(half, d_conv, bias=False)
        self.x_proj = nn.Linear(half, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, half)
        self.A_log = initial_A_log(half, d_state)
        self.D = nn.Parameter(torch.ones(half))
        self.out_proj = nn.Linear(inner, dim, bias=bias)
        init_dt_proj(self.dt_proj, dt_min, dt_max, dt_init, dt_scale, dt_init_floor)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the module from the constructor arguments of NVlabs' `MambaVisionMixer`."""
        # Upstream asks its convolutions for `conv_bias // 2`: never a bias.
        names = UPSTREAM_NAMES | {"conv_bias": None}
        upstream_defaults = {"d_state": 16, "d_conv": 4, "expand": 2}
        return cls(**upstream_defaults | renamed(config, names, "MambaVisionMixer.from_upstream"))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scan's own."""
        return {"A_log", "D", "dt_proj.bias"}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mixes a whole sequence.

        Args:
            x: Input, (B, L, E).
            lengths: Valid steps per sample, (B,) integers; beyond them the output is 0.

        Returns:
            Output, (B, L, E).
        """
        check_sequence(x, self.in_proj.in_features)
        # Twice: NaN must not reach `in_proj`, nor its bias the convolutions, which look ahead.
        xz = zero_padding(self.in_proj(zero_padding(x, lengths)), lengths).mT
        weight = torch.cat([self.conv1d_x.weight, self.conv1d_z.weight]).squeeze(1)
        u, z = _centred_conv(xz, weight).chunk(2, dim=1)
        delta, B, C = select(u, self.x_proj.weight, self.dt_proj.weight)
        # Upstream adds the bias in `dt_proj` and again in the scan; kept for checkpoint parity.
        y = selective_scan(
            u, delta, decay(self.A_log), B, C, self.D, delta_bias=2 * self.dt_proj.bias,
            delta_softplus=True, lengths=lengths,
        )  # fmt: skip
        return zero_padding(self.out_proj(torch.cat([y, z], dim=1).mT), lengths)


def _centred_conv(x: Tensor, weight: Tensor) -> Tensor:
    """silu(conv) of (B, D, L) with padding "same": W // 2 steps ahead, (W - 1) // 2 behind."""
    ahead = weight.shape[1] // 2
    return causal_conv1d(F.pad(x, (0, ahead)), weight, activation="silu")[..., ahead:]
