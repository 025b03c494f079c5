"""The bidirectional Mamba mixer of Vision Mamba (Zhu et al., 2024), with the keys of hustvl/Vim.

    "none"  one forward scan: plain Mamba
    "v1"    one convolution, two scans that differ in A only
    "v2"    two complete branches after a shared `in_proj`; the published models

Nothing is ever flipped: the backward branch is an anti-causal convolution and a scan that runs from
the last step to the first. Shapes as in `blocks.mamba`.
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
    mamba_inner,
    select,
    zero_padding,
)
from blocks.scan.bidirectional import bidirectional_scan
from blocks.scan.paths import FORWARD, REVERSE
from blocks.selective_paths import selective_paths
from blocks.upstream import renamed


class BiMamba(nn.Module):
    """Two selective scans, one per direction, on a shared projection, (B, L, E) to (B, L, E).

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel.
        d_conv: Width W of the convolutions.
        expand: Inner width as a multiple of `dim`.
        d_inner: Inner width D; overrides `expand`.
        dt_rank: Rank R of the step-size projections; "auto" is ceil(dim / 16).
        dt_min: Smallest step size at the start.
        dt_max: Largest step size at the start.
        dt_init: How the weight of `dt_proj` starts: uniform in +-dt_scale R^-0.5, or constant.
        dt_scale: See `dt_init`.
        dt_init_floor: Lower clamp of the first step sizes.
        conv_bias: Whether the convolutions have a bias.
        bias: Whether `in_proj` and `out_proj` have one.
        bimamba_type: What the backward direction has of its own: see the module's head.
        divide_out: Whether the sum of the directions is halved ("div2"); v2 only, as upstream.
        init_layer_scale: Start of a per-channel factor `gamma` on the output; None has no factor.
        backward_dt_init: Start of `dt_proj_b`: "upstream" leaves the weight to nn.Linear and the
            bias at 0, so the backward step sizes start near 0.69; "matched" starts it like
            `dt_proj`, in [dt_min, dt_max].
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        d_inner: int | None = None,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        bimamba_type: Literal["none", "v1", "v2"] = "v2",
        divide_out: bool = False,
        init_layer_scale: float | None = None,
        backward_dt_init: Literal["upstream", "matched"] = "upstream",
    ) -> None:
        super().__init__()
        _check_choice("bimamba_type", bimamba_type, ("none", "v1", "v2"))
        _check_choice("backward_dt_init", backward_dt_init, ("upstream", "matched"))
        self.bimamba_type = bimamba_type
        self.divide_out = divide_out
        inner = d_inner or int(expand * dim)
        rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
        steps = (dt_min, dt_max, dt_init, dt_scale, dt_init_floor)

        self.in_proj = nn.Linear(dim, 2 * inner, bias=bias)
        self.conv1d = depthwise_conv(inner, d_conv, conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = initial_A_log(inner, d_state)
        self.D = nn.Parameter(torch.ones(inner))
        init_dt_proj(self.dt_proj, *steps)
        if bimamba_type != "none":
            self.A_b_log = initial_A_log(inner, d_state)
        if bimamba_type == "v2":
            self.conv1d_b = depthwise_conv(inner, d_conv, conv_bias)
            self.x_proj_b = nn.Linear(inner, rank + 2 * d_state, bias=False)
            self.dt_proj_b = nn.Linear(rank, inner)
            self.D_b = nn.Parameter(torch.ones(inner))
            # Upstream forgets to mark this layer, and its model-wide start zeroes the bias.
            nn.init.zeros_(self.dt_proj_b.bias)
            if backward_dt_init == "matched":
                init_dt_proj(self.dt_proj_b, *steps)
        self.out_proj = nn.Linear(inner, dim, bias=bias)
        self.gamma = (
            None if init_layer_scale is None else nn.Parameter(torch.full((dim,), init_layer_scale))
        )

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the module from the constructor arguments of hustvl/Vim's `Mamba`."""
        names = UPSTREAM_NAMES | {
            "bimamba_type": "bimamba_type",
            "if_divide_out": "divide_out",
            "init_layer_scale": "init_layer_scale",
            "bimamba": None,  # older spelling, unused upstream
        }
        arguments = {"bimamba_type": "none"} | renamed(config, names, "BiMamba.from_upstream")
        return cls(**arguments)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scans' own."""
        own = {"A_log", "D", "dt_proj.bias", "A_b_log", "D_b", "dt_proj_b.bias"}
        return own & {name for name, _ in self.named_parameters()}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mixes a whole sequence.

        Args:
            x: Input, (B, L, E).
            lengths: Valid steps per sample, (B,) integers; beyond them the output is 0 and the
                backward direction starts at the last valid step.

        Returns:
            Output, (B, L, E).
        """
        check_sequence(x, self.in_proj.in_features)
        xz = self.in_proj(zero_padding(x, lengths)).mT
        y = self._two_branches(xz, lengths) if self.bimamba_type == "v2" else self._one(xz, lengths)
        y = y if self.gamma is None else y * self.gamma
        return zero_padding(y, lengths)

    def _one(self, xz: Tensor, lengths: Tensor | None) -> Tensor:
        """One branch, scanned in one direction ("none") or both ("v1")."""
        before = (
            xz,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.out_proj.weight,
            self.out_proj.bias,
            decay(self.A_log),
        )
        if self.bimamba_type == "none":
            return mamba_inner(*before, self.D, self.dt_proj.bias, lengths=lengths)
        A_b = decay(self.A_b_log)
        return bimamba_inner(*before, A_b, self.D, self.dt_proj.bias, lengths=lengths)

    def _two_branches(self, xz: Tensor, lengths: Tensor | None) -> Tensor:
        x, z = xz.chunk(2, dim=1)
        conv, conv_b = self.conv1d, self.conv1d_b
        y = selective_paths(
            x,
            z,
            torch.stack((conv.weight.squeeze(1), conv_b.weight.squeeze(1))),
            _pair(conv.bias, conv_b.bias),
            torch.stack((self.x_proj.weight, self.x_proj_b.weight)),
            torch.stack((self.dt_proj.weight, self.dt_proj_b.weight)),
            decay(torch.stack((self.A_log, self.A_b_log))),
            torch.stack((self.D, self.D_b)),
            torch.stack((self.dt_proj.bias, self.dt_proj_b.bias)),
            paths=FORWARD + REVERSE,
            lengths=lengths,
        )
        y = y / 2 if self.divide_out else y
        out: Tensor = self.out_proj(y.mT)
        return out


def bimamba_inner(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
) -> Tensor:
    """Everything of a "v1" mixer after `in_proj`: `mamba_inner` with a second, reverse scan.

    Args:
        xz: Input and gate, (B, 2D, L).
        conv1d_weight: (D, 1, W).
        conv1d_bias: (D,).
        x_proj_weight: (R + 2N, D).
        delta_proj_weight: (D, R).
        out_proj_weight: (E, D).
        out_proj_bias: (E,).
        A: Decay of the forward scan, (D, N).
        A_b: Decay of the reverse scan, (D, N).
        D: Skip weights, (D,); both scans carry them.
        delta_bias: (D,).
        B_proj_bias: Added to B, (N,).
        C_proj_bias: Added to C, (N,).
        lengths: Valid steps per sample, (B,).

    Returns:
        Output, (B, L, E), the sum of both directions.
    """
    x, z = xz.chunk(2, dim=1)
    weight = conv1d_weight.squeeze(1)
    u = causal_conv1d(x, weight, conv1d_bias, activation="silu", lengths=lengths)
    delta, B, C = select(u, x_proj_weight, delta_proj_weight, B_proj_bias, C_proj_bias)
    y = bidirectional_scan(
        u, delta, A, B, C, D, z, delta_bias, A_b=A_b, delta_softplus=True, lengths=lengths
    )
    return F.linear(y.mT, out_proj_weight, out_proj_bias)


def _pair(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.stack((first, second))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SuiteError(
            expected="one of " + ", ".join(choices),
            found=repr(value),
            where=f"BiMamba({name}=...)",
            cure="the published Vim models use v2 and upstream, the defaults",
        )
