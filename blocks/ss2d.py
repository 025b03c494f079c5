"""The 2-D selective scan of VMamba (Liu et al., 2024), with the keys of MzeroMiko/VMamba.

    x, z = in_proj(input)
    x = silu(depthwise conv(x));  delta, B, C = projections of x, one set per direction
    y = sum over directions of scan(x, delta, -exp(A_logs), B, C, Ds)
    output = out_proj(norm(y) silu(z))

A grid is one sequence, row after row; the directions walk it in their own order where it lies
(`blocks.scan.paths`), so no copy is flipped or transposed. Forms of the whole:
`blocks.forward_type`.

Shapes: B batch, H rows, W columns, L = H W, K = 4 directions, E outer width `dim`, D inner width
ssm_ratio E, N `d_state`, R `dt_rank`. Inside, channels are last in memory whatever the order of
the axes outside.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.forward_type import parse_forward_type
from blocks.grid_layers import DepthwiseConv2d, PointwiseLinear, out_norm
from blocks.mamba import decay, init_dt_proj, initial_A_log
from blocks.scan.operator import path_scan
from blocks.upstream import renamed

_UPSTREAM_NAMES = {
    "d_model": "dim",
    "d_state": "d_state",
    "ssm_ratio": "ssm_ratio",
    "dt_rank": "dt_rank",
    "act_layer": "act_layer",
    "d_conv": "d_conv",
    "conv_bias": "conv_bias",
    "dropout": "dropout",
    "bias": "bias",
    "dt_min": "dt_min",
    "dt_max": "dt_max",
    "dt_init": "dt_init",
    "dt_scale": "dt_scale",
    "dt_init_floor": "dt_init_floor",
    "initialize": "initialize",
    "forward_type": "forward_type",
    "channel_first": "channel_first",
}
# What upstream's "v0" listens to; it sets the rest itself, to our defaults.
_V0_NAMES = ("dim", "d_state", "ssm_ratio", "dt_rank", "dropout", "forward_type", "channel_first")
_DIRECTIONS = 4


class SS2D(nn.Module):
    """Four selective scans over a grid, (B, H, W, E) to (B, H, W, E).

    `A_logs`, `Ds` and `dt_projs_bias` enter the scan in float32 whatever the precision around it.
    Its output is normalised before it returns to the type of the input.

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel; 16 in the first models, 1 in the current ones.
        ssm_ratio: Inner width D as a multiple of `dim`.
        dt_rank: Rank R of the step-size projections; "auto" is ceil(dim / 16).
        d_conv: Side of the depthwise convolution, odd; below 2 there is none.
        conv_bias: Whether the convolution has a bias.
        bias: Whether `in_proj` and `out_proj` have one.
        dropout: Share of the output set to 0 in training.
        dt_min: Smallest step size at the start.
        dt_max: Largest step size at the start.
        dt_init: How `dt_projs_weight` starts: uniform in +-dt_scale R^-0.5, or constant.
        dt_scale: See `dt_init`.
        dt_init_floor: Lower clamp of the first step sizes.
        initialize: Start of the scan: "v0" as in Mamba, the only one to read the five `dt_`
            arguments above; "v1" normal `A_logs` and 0.1 normal steps; "v2" zero `A_logs` and
            steps uniform in [0, 0.1].
        forward_type: Form of the mixer, see `blocks.forward_type`.
        channel_first: Whether input and output are (B, E, H, W). The output keeps its channels
            last in memory (`torch.channels_last`); such an input is not copied either.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        ssm_ratio: float = 2.0,
        dt_rank: int | Literal["auto"] = "auto",
        d_conv: int = 3,
        conv_bias: bool = True,
        bias: bool = False,
        dropout: float = 0.0,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        initialize: Literal["v0", "v1", "v2"] = "v0",
        forward_type: str = "v05",
        channel_first: bool = False,
    ) -> None:
        super().__init__()
        _check_conv(d_conv)
        self.form = parse_forward_type(forward_type)
        self.channel_first = channel_first
        inner = int(ssm_ratio * dim)
        rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank

        gated = self.form.gate != "none"
        self.in_proj = PointwiseLinear(dim, 2 * inner if gated else inner, bias=bias)
        self.conv2d = DepthwiseConv2d(inner, d_conv, conv_bias) if d_conv > 1 else None
        x_proj_weight = torch.empty(_DIRECTIONS, rank + 2 * d_state, inner)
        self.x_proj_weight = nn.Parameter(x_proj_weight.uniform_(-(inner**-0.5), inner**-0.5))
        steps = (dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        weight, bias_, A_logs = initial_scan(initialize, inner, rank, d_state, *steps)
        self.dt_projs_weight = nn.Parameter(weight)
        self.dt_projs_bias = nn.Parameter(bias_)
        self.A_logs = nn.Parameter(A_logs)
        self.Ds = nn.Parameter(torch.ones(_DIRECTIONS * inner))
        self.out_norm = out_norm(self.form.out_norm, inner)
        self.out_proj = PointwiseLinear(inner, dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the module from the constructor arguments of MzeroMiko/VMamba's `SS2D`."""
        ours = {"forward_type": "v2"} | renamed(config, _UPSTREAM_NAMES, "SS2D.from_upstream")
        act_layer = ours.pop("act_layer", nn.SiLU)
        if act_layer is not nn.SiLU:
            raise SuiteError(
                expected="act_layer=torch.nn.SiLU, as in every published model",
                found=repr(act_layer),
                where="SS2D.from_upstream",
                cure="leave act_layer out",
            )
        if ours["forward_type"] == "v0":
            ours = {name: value for name, value in ours.items() if name in _V0_NAMES}
        return cls(**ours)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scans' own."""
        return {"A_logs", "Ds", "dt_projs_bias"}

    def forward(self, x: Tensor) -> Tensor:
        """Mixes a grid.

        Args:
            x: Input, (B, H, W, E), or (B, E, H, W) when `channel_first`.

        Returns:
            Output in the shape of x.
        """
        self._check_grid(x)
        x = x.permute(0, 2, 3, 1) if self.channel_first else x
        x, z = self._gated(self.in_proj(x))
        u = F.silu(x if self.conv2d is None else self.conv2d(x))
        y = self._cascade(u) if self.form.cascade else self._cross(u)
        y = self.out_norm(y).to(u.dtype)
        y = F.gelu(y) if self.form.out_activation else y
        y = y if z is None else y * z
        out: Tensor = self.dropout(self.out_proj(y))
        return out.permute(0, 3, 1, 2) if self.channel_first else out

    def _gated(self, xz: Tensor) -> tuple[Tensor, Tensor | None]:
        """Stream and gate from the output of `in_proj`."""
        if self.form.gate == "none":
            return xz, None
        x, z = xz.chunk(2, dim=-1)
        return x, F.silu(z) if self.form.gate == "activated" else z

    def _cross(self, u: Tensor) -> Tensor:
        """(B, H, W, D): every direction walks the whole grid."""
        y = self._scan(u.flatten(1, 2), self.form.paths, first=0, width=u.shape[2])
        return y.view(u.shape)

    def _cascade(self, u: Tensor) -> Tensor:
        """(B, H, W, D): each row is a sequence, then each column of the result."""
        for first in (0, 2):
            u = F.layer_norm(u, u.shape[-1:])
            lines = u.flatten(0, 1)
            y = self._scan(lines, self.form.paths[first], first)
            # Upstream forgets to turn the backward scan round again: its output is added
            # mirrored. Kept for checkpoint parity.
            y = y + self._scan(lines, self.form.paths[first + 1], first + 1).flip(1)
            u = y.view(u.shape).transpose(1, 2)
        return u

    def _scan(self, u: Tensor, paths: str, first: int, width: int | None = None) -> Tensor:
        """Sum over the paths, (B, L, D), of directions `first` and following."""
        own = slice(first, first + len(paths))
        delta, B, C = _select(u, self.x_proj_weight[own], self.dt_projs_weight[own])
        each = (_DIRECTIONS, u.shape[-1])
        u = _at_least_float32(u) if self.form.float32_scan else u
        y, _ = path_scan(
            u.mT.unsqueeze(1), delta, decay(self.A_logs).view(*each, -1)[own], B, C,
            _at_least_float32(self.Ds).view(each)[own], None,
            _at_least_float32(self.dt_projs_bias)[own], True, paths=paths, width=width,
        )  # fmt: skip
        return y.mT

    def _check_grid(self, x: Tensor) -> None:
        dim = self.in_proj.in_features
        if x.dim() != 4 or x.shape[1 if self.channel_first else -1] != dim:
            shape = f"({dim}, height, width)" if self.channel_first else f"(height, width, {dim})"
            raise SuiteError(
                expected=f"shape (batch, {shape[1:]}",
                found=f"shape {tuple(x.shape)}",
                where="input of SS2D",
                cure="set channel_first to the order of the axes, dim to the width of the input",
            )


def _select(
    u: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The input-dependent parameters of K scans over one sequence.

    They are pointwise, so each direction finds them in memory order.

    Args:
        u: (B, L, D).
        x_proj_weight: (K, R + 2N, D), rows for step size, B, C.
        dt_projs_weight: (K, D, R).

    Returns:
        Raw step sizes (B, K, D, L) without their bias; B and C, (B, K, N, L). Channels and states
        are next to one another in memory.
    """
    directions, inner, rank = dt_projs_weight.shape
    states = (x_proj_weight.shape[1] - rank) // 2
    # Between the two scans of a cascade u is float32, also among 16-bit weights.
    x_proj_weight, dt_projs_weight = x_proj_weight.to(u.dtype), dt_projs_weight.to(u.dtype)
    projected = F.linear(u, x_proj_weight.flatten(0, 1))
    projected = projected.view(*u.shape[:2], *x_proj_weight.shape[:2])
    dt, B, C = torch.split(projected, [rank, states, states], dim=-1)  # (B, L, K, R or N)
    delta = torch.bmm(dt.flatten(0, 1).transpose(0, 1), dt_projs_weight.mT)  # (K, B L, D)
    delta = delta.view(directions, *u.shape[:2], inner).permute(1, 0, 3, 2)
    return delta, B.permute(0, 2, 3, 1), C.permute(0, 2, 3, 1)


def initial_scan(
    initialize: str,
    inner: int,
    rank: int,
    states: int,
    dt_min: float,
    dt_max: float,
    dt_init: Literal["random", "constant"],
    dt_scale: float,
    dt_init_floor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`dt_projs_weight` (K, D, R), `dt_projs_bias` (K, D), `A_logs` (K D, N) of K = 4 scans.

    Arguments are those of `SS2D`, with the widths D `inner`, R `rank` and N `states`.
    """
    weight = torch.empty(_DIRECTIONS, inner, rank)
    bias = torch.empty(_DIRECTIONS, inner)
    if initialize == "v1":
        return 0.1 * weight.normal_(), 0.1 * bias.normal_(), torch.randn(4 * inner, states)
    if initialize == "v2":
        return weight.uniform_(0, 0.1), bias.uniform_(0, 0.1), torch.zeros(4 * inner, states)
    if initialize != "v0":
        raise SuiteError(
            expected="one of v0, v1, v2",
            found=repr(initialize),
            where="SS2D(initialize=...)",
            cure="the published models use v0, the default",
        )
    for k in range(_DIRECTIONS):
        dt_proj = nn.Linear(rank, inner)
        init_dt_proj(dt_proj, dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        weight[k], bias[k] = dt_proj.weight.detach(), dt_proj.bias.detach()
    return weight, bias, initial_A_log(_DIRECTIONS * inner, states).detach()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_conv(width: int) -> None:
    if width > 1 and width % 2 == 0:
        raise SuiteError(
            expected="an odd side, or one below 2 for no convolution",
            found=f"d_conv={width}",
            where="SS2D(d_conv=...)",
            cure="use 3, the default: an even side would shrink the grid",
        )
