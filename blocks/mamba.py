"""The Mamba mixer (Gu and Dao, 2023), with the keys and the start of state-spaces/mamba.

    x, z = in_proj(input)
    x = silu(causal conv(x));  delta, B, C = projections of x
    output = out_proj(scan(x, delta, -exp(A_log), B, C, D, z))

Shapes: B batch, L time, E outer width `dim`, D inner width `d_inner`, N `d_state`, R `dt_rank`,
W `d_conv`. Modules work on (B, L, E), functions on (B, channels, L).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.causal_conv import causal_conv1d, causal_conv1d_update, last_steps
from blocks.errors import SuiteError
from blocks.scan.bidirectional import padding_mask
from blocks.scan.dispatch import selective_scan
from blocks.scan.update import selective_state_update
from blocks.upstream import renamed

UPSTREAM_NAMES = {
    "d_model": "dim",
    "d_state": "d_state",
    "d_conv": "d_conv",
    "expand": "expand",
    "dt_rank": "dt_rank",
    "dt_min": "dt_min",
    "dt_max": "dt_max",
    "dt_init": "dt_init",
    "dt_scale": "dt_scale",
    "dt_init_floor": "dt_init_floor",
    "conv_bias": "conv_bias",
    "bias": "bias",
    # Kernel choice, position in the stack, placement: not part of the function.
    "use_fast_path": None,
    "layer_idx": None,
    "device": None,
    "dtype": None,
}


@dataclass
class MambaCache:
    """What a `Mamba` remembers between steps.

    Args:
        conv_state: Latest inputs of the convolution, (B, D, W), oldest first.
        ssm_state: State of the scan, (B, D, N), float32 or float64.
    """

    conv_state: Tensor
    ssm_state: Tensor


class Mamba(nn.Module):
    """A gated selective scan over time, (B, L, E) to (B, L, E).

    `A_log`, `D` and `dt_proj.bias` enter the scan in float32 whatever the precision around it.

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel.
        d_conv: Width W of the causal convolution.
        expand: Inner width as a multiple of `dim`.
        d_inner: Inner width D; overrides `expand`.
        dt_rank: Rank R of the step-size projection; "auto" is ceil(dim / 16).
        dt_min: Smallest step size at the start.
        dt_max: Largest step size at the start.
        dt_init: How the weight of `dt_proj` starts: uniform in +-dt_scale R^-0.5, or constant.
        dt_scale: See `dt_init`.
        dt_init_floor: Lower clamp of the first step sizes.
        conv_bias: Whether the convolution has a bias.
        bias: Whether `in_proj` and `out_proj` have one.
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
    ) -> None:
        super().__init__()
        inner = d_inner or int(expand * dim)
        rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(dim, 2 * inner, bias=bias)
        self.conv1d = depthwise_conv(inner, d_conv, conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = initial_A_log(inner, d_state)
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=bias)
        init_dt_proj(self.dt_proj, dt_min, dt_max, dt_init, dt_scale, dt_init_floor)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the module from the constructor arguments of state-spaces/mamba's `Mamba`."""
        return cls(**renamed(config, UPSTREAM_NAMES, "Mamba.from_upstream"))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scan's own."""
        return {"A_log", "D", "dt_proj.bias"}

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        cache: MambaCache | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """Mixes a whole sequence.

        Args:
            x: Input, (B, L, E).
            lengths: Valid steps per sample, (B,) integers; beyond them the output is 0.
            cache: Filled with the memory after the last valid step, for `step` to go on from. The
                sequence itself starts from an empty past.
            reverse: Whether time runs from the last valid step to the first; not with a cache.

        Returns:
            Output, (B, L, E).
        """
        check_sequence(x, self.in_proj.in_features)
        x = zero_padding(x, lengths)
        y = mamba_inner(
            self.in_proj(x).mT,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.out_proj.weight,
            self.out_proj.bias,
            decay(self.A_log),
            self.D,
            self.dt_proj.bias,
            lengths=lengths,
            cache=cache,
            reverse=reverse,
        )
        return zero_padding(y, lengths)

    def allocate_cache(self, batch_size: int, device: torch.device | None = None) -> MambaCache:
        """An empty memory for `batch_size` sequences, on the module's device by default."""
        device = device or self.A_log.device
        dtype = torch.promote_types(self.A_log.dtype, torch.float32)
        inner, states = self.A_log.shape
        width = self.conv1d.weight.shape[-1]
        return MambaCache(
            torch.zeros(batch_size, inner, width, device=device, dtype=dtype),
            torch.zeros(batch_size, inner, states, device=device, dtype=dtype),
        )

    def step(self, x: Tensor, cache: MambaCache) -> Tensor:
        """Mixes one more step; equals the last step of `forward` on everything so far.

        Args:
            x: Input, (B, E) or (B, 1, E).
            cache: Memory of the steps before, updated in place and outside the graph.

        Returns:
            Output in the shape of x.
        """
        u, z = self.in_proj(x.reshape(-1, x.shape[-1])).chunk(2, dim=-1)
        weight = self.conv1d.weight.squeeze(1)
        u = causal_conv1d_update(u, cache.conv_state, weight, self.conv1d.bias, "silu")
        states = self.A_log.shape[1]
        selected = F.linear(u, self.x_proj.weight)
        dt, B, C = torch.split(selected, [self.dt_proj.in_features, states, states], dim=-1)
        delta = F.linear(dt, self.dt_proj.weight)
        y = selective_state_update(
            cache.ssm_state, u, delta, decay(self.A_log), B, C, self.D, z, self.dt_proj.bias
        )
        out: Tensor = self.out_proj(y)
        return out.view(x.shape)


def mamba_inner(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    cache: MambaCache | None = None,
    reverse: bool = False,
) -> Tensor:
    """Everything of a Mamba mixer after `in_proj`.

    Args:
        xz: Input and gate, (B, 2D, L).
        conv1d_weight: (D, 1, W).
        conv1d_bias: (D,).
        x_proj_weight: (R + 2N, D), rows for step size, B, C.
        delta_proj_weight: (D, R).
        out_proj_weight: (E, D).
        out_proj_bias: (E,).
        A: Decay, (D, N), negative.
        D: Skip weights, (D,).
        delta_bias: (D,).
        B_proj_bias: Added to B, (N,).
        C_proj_bias: Added to C, (N,).
        lengths: Valid steps per sample, (B,).
        cache: Filled with the memory after the last valid step.
        reverse: Whether time runs from the last valid step to the first, in the convolution and
            in the scan: flip(mamba(flip(...))) without a flip.

    Returns:
        Output, (B, L, E).

    Raises:
        SuiteError: A cache is asked of a reverse mixer.
    """
    if reverse and cache is not None:
        raise SuiteError(
            expected="a cache with a forward mixer only",
            found="reverse=True",
            where="mamba_inner(cache=...)",
            cure="leave the cache out: nothing is ever stepped backwards",
        )
    x, z = xz.chunk(2, dim=1)
    weight = conv1d_weight.squeeze(1)
    u = causal_conv1d(x, weight, conv1d_bias, activation="silu", reverse=reverse, lengths=lengths)
    delta, B, C = select(u, x_proj_weight, delta_proj_weight, B_proj_bias, C_proj_bias)
    y, last_state = selective_scan(
        u, delta, A, B, C, D, z, delta_bias, True,
        return_last_state=True, reverse=reverse, lengths=lengths,
    )  # fmt: skip
    if cache is not None:
        cache.conv_state.copy_(last_steps(x, weight.shape[1], lengths).detach())
        cache.ssm_state.copy_(last_state.detach())
    return F.linear(y.mT, out_proj_weight, out_proj_bias)


def select(
    x: Tensor,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The input-dependent parameters of the scan.

    Args:
        x: (B, D, L).
        x_proj_weight: (R + 2N, D).
        delta_proj_weight: (D, R).
        B_proj_bias: (N,).
        C_proj_bias: (N,).

    Returns:
        Raw step sizes (B, D, L) without their bias, which the scan adds; B and C, (B, N, L).
    """
    rank = delta_proj_weight.shape[1]
    states = (x_proj_weight.shape[0] - rank) // 2
    dt, B, C = torch.split(F.linear(x.mT, x_proj_weight), [rank, states, states], dim=-1)
    B = B if B_proj_bias is None else B + B_proj_bias.to(B.dtype)
    C = C if C_proj_bias is None else C + C_proj_bias.to(C.dtype)
    return F.linear(dt, delta_proj_weight).mT, B.mT, C.mT


def decay(A_log: Tensor) -> Tensor:
    """A = -exp(A_log), in float32 at least: bfloat16 would be off by up to 0.7 %."""
    return -torch.exp(A_log.to(torch.promote_types(A_log.dtype, torch.float32)))


def initial_A_log(d_inner: int, d_state: int) -> nn.Parameter:
    """A = -1, -2, ..., -N in every channel (S4D-real)."""
    return nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(d_inner, 1))


def depthwise_conv(d_inner: int, width: int, bias: bool) -> nn.Conv1d:
    """Holds weight (D, 1, W) and bias (D,) under upstream's keys; never called as a module."""
    return nn.Conv1d(d_inner, d_inner, width, groups=d_inner, padding=width - 1, bias=bias)


@torch.no_grad()
def init_dt_proj(
    dt_proj: nn.Linear,
    dt_min: float,
    dt_max: float,
    dt_init: Literal["random", "constant"],
    dt_scale: float,
    dt_init_floor: float,
) -> None:
    """Starts the step sizes log-uniform in [dt_min, dt_max]; arguments are those of `Mamba`."""
    bound = dt_scale * dt_proj.in_features**-0.5
    if dt_init == "constant":
        dt_proj.weight.fill_(bound)
    elif dt_init == "random":
        dt_proj.weight.uniform_(-bound, bound)
    else:
        raise SuiteError(
            expected='"random" or "constant"',
            found=repr(dt_init),
            where="dt_init",
            cure="use the default, random",
        )
    log_dt = torch.empty_like(dt_proj.bias).uniform_(math.log(dt_min), math.log(dt_max))
    dt = log_dt.exp().clamp(min=dt_init_floor)
    # Inverse of softplus, so that softplus(bias) = dt.
    dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, L, E) with zeros beyond each sample's length, whatever stood there."""
    if lengths is None:
        return x
    return x.masked_fill(padding_mask(lengths, x.shape[1]).unsqueeze(-1), 0)


def check_sequence(x: Tensor, dim: int) -> None:
    """Raises a SuiteError unless x is (batch, time, dim)."""
    if x.dim() != 3 or x.shape[-1] != dim:
        raise SuiteError(
            expected=f"shape (batch, time, {dim})",
            found=f"shape {tuple(x.shape)}",
            where="input of the mixer",
            cure="put channels last, or build the mixer with dim of the input",
        )
