"""The Mamba-2 mixer (Dao and Gu, 2024), with the keys and the start of state-spaces/mamba.

    z, xBC, dt = in_proj(input)
    x, B, C = silu(causal conv(xBC))
    y = ssd(x, softplus(dt + dt_bias), -exp(A_log), B, C) + D x
    output = out_proj(norm(y silu(z)))

Shapes: B batch, L time, E outer width `dim`, D inner width expand E, of which S = `d_ssm` are
scanned and the rest is a gated MLP; H heads of P = `head_dim` channels, G groups of heads that
share B and C, N `d_state`, W `d_conv`. The convolution sees S + 2 G N channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.causal_conv import causal_conv1d, causal_conv1d_update, last_steps
from blocks.errors import SuiteError
from blocks.mamba import check_sequence, decay, depthwise_conv, zero_padding
from blocks.ssd import CHUNK_SIZE, ssd
from blocks.upstream import renamed

UPSTREAM_NAMES = {
    "d_model": "dim",
    "d_state": "d_state",
    "d_conv": "d_conv",
    "conv_init": "conv_init",
    "expand": "expand",
    "headdim": "head_dim",
    "ngroups": "num_groups",
    "dt_min": "dt_min",
    "dt_max": "dt_max",
    "dt_init_floor": "dt_init_floor",
    "dt_limit": "dt_limit",
    "conv_bias": "conv_bias",
    "bias": "bias",
    # Tiling and choice of their kernels, position, placement: not part of the function.
    "chunk_size": None,
    "use_mem_eff_path": None,
    "layer_idx": None,
    "process_group": None,
    "sequence_parallel": None,
    "device": None,
    "dtype": None,
}


@dataclass
class Mamba2Cache:
    """What a `Mamba2` remembers between steps.

    Args:
        conv_state: Latest inputs of the convolution, (B, S + 2 G N, W), oldest first.
        ssm_state: State of the scan, (B, H, P, N), float32 or float64.
    """

    conv_state: Tensor
    ssm_state: Tensor


class Mamba2(nn.Module):
    """A gated scan with one decay per head, (B, L, E) to (B, L, E).

    `A_log`, `D` and `dt_bias` enter in float32 whatever the precision around them.

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel.
        d_conv: Width W of the causal convolution.
        expand: Inner width D as a multiple of `dim`.
        head_dim: Channels P per head; must divide `d_ssm`.
        d_ssm: Scanned channels S; None scans all D. The others become a gated MLP.
        num_groups: Groups G of heads with B and C of their own, also groups of the norm.
        D_has_head_dim: Whether the skip has a weight per channel instead of one per head.
        use_norm: Whether a norm follows the scan.
        norm_before_gate: Whether the norm comes before the gate instead of after.
        A_init_range: The decay rate -A of a head starts uniform in this range.
        dt_min: Smallest step size at the start.
        dt_max: Largest step size at the start.
        dt_init_floor: Lower clamp of the first step sizes.
        dt_limit: The step sizes stay in this range, always.
        conv_init: The taps start uniform in +-conv_init; None keeps the start of nn.Conv1d.
        conv_bias: Whether the convolution has a bias.
        bias: Whether `in_proj` and `out_proj` have one.
        chunk_size: Most steps per chunk of the scan; changes speed and memory only.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: float = 2,
        head_dim: int = 64,
        d_ssm: int | None = None,
        num_groups: int = 1,
        D_has_head_dim: bool = False,
        use_norm: bool = True,
        norm_before_gate: bool = False,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        conv_init: float | None = None,
        conv_bias: bool = True,
        bias: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        super().__init__()
        inner = int(expand * dim)
        scanned = inner if d_ssm is None else d_ssm
        heads = count_heads(scanned, head_dim, num_groups)
        if not 0 < scanned <= inner:
            raise SuiteError(
                expected=f"between {head_dim} and expand * dim = {inner} scanned channels",
                found=f"d_ssm={scanned}",
                where="Mamba2(d_ssm=...)",
                cure="leave d_ssm out to scan all of them",
            )
        self.num_groups = num_groups
        self.head_dim = head_dim
        self.dt_limit = (float(dt_limit[0]), float(dt_limit[1]))
        self.chunk_size = chunk_size

        convolved = scanned + 2 * num_groups * d_state
        # Rows of `in_proj`: gate and input of the MLP, z, (x, B, C), dt.
        self.sizes = [inner - scanned, inner - scanned, scanned, convolved, heads]
        self.in_proj = nn.Linear(dim, sum(self.sizes), bias=bias)
        self.conv1d = depthwise_conv(convolved, d_conv, conv_bias)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self.dt_bias = initial_dt_bias(heads, dt_min, dt_max, dt_init_floor)
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(scanned if D_has_head_dim else heads))
        self.norm = GatedRMSNorm(scanned, num_groups, norm_before_gate) if use_norm else None
        self.out_proj = nn.Linear(inner, dim, bias=bias)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the module from the constructor arguments of state-spaces/mamba's `Mamba2`."""
        names = UPSTREAM_NAMES | {
            "d_ssm": "d_ssm",
            "D_has_hdim": "D_has_head_dim",
            "rmsnorm": "use_norm",
            "norm_before_gate": "norm_before_gate",
            "A_init_range": "A_init_range",
        }
        return cls(**renamed(config, names, "Mamba2.from_upstream"))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scan's own."""
        return {"A_log", "D", "dt_bias"}

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, cache: Mamba2Cache | None = None
    ) -> Tensor:
        """Mixes a whole sequence.

        Args:
            x: Input, (B, L, E).
            lengths: Valid steps per sample, (B,) integers; beyond them the output is 0.
            cache: Filled with the memory after the last valid step, for `step` to go on from. The
                sequence itself starts from an empty past.

        Returns:
            Output, (B, L, E).
        """
        check_sequence(x, self.in_proj.in_features)
        projected = self.in_proj(zero_padding(x, lengths))
        *gates, xBC, dt = torch.split(projected, self.sizes, dim=-1)
        weight, bias = self.conv1d.weight.squeeze(1), self.conv1d.bias
        conv = causal_conv1d(xBC.mT, weight, bias, activation="silu", lengths=lengths).mT
        y, state = self._scan(conv, dt, lengths=lengths)
        if cache is not None:
            past = last_steps(xBC.mT, weight.shape[1], lengths)
            cache.conv_state.copy_(past.detach())
            cache.ssm_state.copy_(state.detach())
        return zero_padding(self._gated(y, *gates), lengths)

    def allocate_cache(self, batch_size: int, device: torch.device | None = None) -> Mamba2Cache:
        """An empty memory for `batch_size` sequences, on the module's device by default."""
        device = device or self.A_log.device
        dtype = torch.promote_types(self.A_log.dtype, torch.float32)
        channels, _, width = self.conv1d.weight.shape
        states = (channels - self.sizes[2]) // (2 * self.num_groups)
        heads = self.A_log.shape[0]
        return Mamba2Cache(
            torch.zeros(batch_size, channels, width, device=device, dtype=dtype),
            torch.zeros(batch_size, heads, self.head_dim, states, device=device, dtype=dtype),
        )

    def step(self, x: Tensor, cache: Mamba2Cache) -> Tensor:
        """Mixes one more step; equals the last step of `forward` on everything so far.

        Args:
            x: Input, (B, E) or (B, 1, E).
            cache: Memory of the steps before, updated in place and outside the graph.

        Returns:
            Output in the shape of x.
        """
        projected = self.in_proj(x.reshape(-1, 1, x.shape[-1]))
        *gates, xBC, dt = torch.split(projected, self.sizes, dim=-1)
        weight, bias = self.conv1d.weight.squeeze(1), self.conv1d.bias
        conv = causal_conv1d_update(xBC.mT, cache.conv_state, weight, bias, "silu").mT
        y, state = self._scan(conv, dt, past=cache.ssm_state)
        cache.ssm_state.copy_(state.detach())
        return self._gated(y, *gates).view(x.shape)

    def _scan(
        self, xBC: Tensor, dt: Tensor, past: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The scan with its skip, (B, L, S), and the last state (B, H, P, N)."""
        x, B, C = _split_xBC(xBC, self.sizes[2], self.head_dim, self.num_groups)
        dt = step_sizes(dt, self.dt_bias, self.dt_limit)
        y, state = ssd(
            x, dt, decay(self.A_log), B, C, chunk_size=self.chunk_size, initial_states=past,
            return_final_state=True, lengths=lengths,
        )  # fmt: skip
        D = self.D.to(dt.dtype).view(self.A_log.shape[0], -1)
        return (y + D * x).flatten(2), state

    def _gated(self, y: Tensor, mlp_gate: Tensor, mlp: Tensor, z: Tensor) -> Tensor:
        y = y * F.silu(z) if self.norm is None else self.norm(y, z)
        y = torch.cat([F.silu(mlp_gate) * mlp, y.to(z.dtype)], dim=-1)
        out: Tensor = self.out_proj(y)
        return out


class GatedRMSNorm(nn.Module):
    """RMSNorm over groups of channels and a gate silu(z), in either order.

    Source: `RMSNormGated` of state-spaces/mamba. Computes in float32 (float64 if y is).

    Args:
        dim: Length of the last axis.
        num_groups: Each of this many equal parts of it has a mean square of its own.
        norm_before_gate: norm(y) silu(z) instead of norm(y silu(z)).
        eps: Added to the mean squares.
    """

    def __init__(
        self, dim: int, num_groups: int = 1, norm_before_gate: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.norm_before_gate = norm_before_gate
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """Normalises and gates y, (..., dim), with z of the same shape."""
        dtype = torch.promote_types(y.dtype, torch.float32)
        y, gate = y.to(dtype), F.silu(z.to(dtype))
        y = y if self.norm_before_gate else y * gate
        grouped = torch.unflatten(y, -1, (self.num_groups, -1))
        grouped = grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + self.eps)
        y = grouped.flatten(-2) * self.weight.to(dtype)
        return y * gate if self.norm_before_gate else y

    def extra_repr(self) -> str:
        """Size, groups and order."""
        order = f"norm_before_gate={self.norm_before_gate}"
        return f"{self.weight.shape[0]}, num_groups={self.num_groups}, {order}, eps={self.eps}"


def step_sizes(dt: Tensor, dt_bias: Tensor, dt_limit: tuple[float, float]) -> Tensor:
    """softplus(dt + dt_bias) within the limits, in float32 at least; (..., H)."""
    dtype = torch.promote_types(dt.dtype, torch.float32)
    return F.softplus(dt.to(dtype) + dt_bias.to(dtype)).clamp(*dt_limit)


def count_heads(channels: int, head_dim: int, num_groups: int) -> int:
    """Heads of `head_dim` channels each, which must fall into equal groups."""
    if channels % (head_dim * num_groups):
        raise SuiteError(
            expected=f"scanned channels that are a multiple of head_dim * num_groups = "
            f"{head_dim} * {num_groups}",
            found=f"{channels} scanned channels",
            where="head_dim, num_groups",
            cure="choose a smaller head_dim, for example a power of two that divides dim",
        )
    return channels // head_dim


def initial_dt_bias(heads: int, dt_min: float, dt_max: float, dt_init_floor: float) -> nn.Parameter:
    """Such that softplus(dt_bias) starts log-uniform in [dt_min, dt_max]."""
    log_dt = torch.empty(heads).uniform_(math.log(dt_min), math.log(dt_max))
    dt = log_dt.exp().clamp(min=dt_init_floor)
    # Inverse of softplus.
    return nn.Parameter(dt + torch.log(-torch.expm1(-dt)))


def _split_xBC(
    xBC: Tensor, channels: int, head_dim: int, num_groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The x (B, L, H, P), B and C (B, L, G, N) in rows (B, L, H P + 2 G N)."""
    rest = (xBC.shape[-1] - channels) // 2
    x, B, C = torch.split(xBC, [channels, rest, rest], dim=-1)
    B, C = (torch.unflatten(v, -1, (num_groups, -1)) for v in (B, C))
    return torch.unflatten(x, -1, (-1, head_dim)), B, C
