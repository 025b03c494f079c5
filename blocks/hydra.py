"""The Hydra mixer (Hwang, Lahoti, Dao and Gu, 2024), with the keys of goombalab/hydra.

    z, xBC, dt = in_proj(input)
    x, B, C, B_b, C_b = silu(centred conv(xBC))
    y = shift(ssd(x, B, C)) + shift_b(ssd_b(x, B_b, C_b)) + (fc_D(x) + D) x
    output = out_proj(norm(y) silu(z))

Together the two directions are one quasi-separable matrix: the forward scan, one step late, is its
part below the diagonal, the backward scan (_b) the part above, and the skip the diagonal.

Shapes: B batch, L time, E outer width `dim`, D inner width expand E, H heads of P = `head_dim`
channels, G groups of heads that share B and C, N `d_state`, W `d_conv`. The convolution sees
D + 4 G N channels; step sizes differ per direction, their bias and the decay do not.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.causal_conv import causal_conv1d
from blocks.errors import SuiteError
from blocks.mamba import check_sequence, decay, depthwise_conv, zero_padding
from blocks.mamba2 import (
    UPSTREAM_NAMES,
    GatedRMSNorm,
    count_heads,
    initial_dt_bias,
    step_sizes,
)
from blocks.ssd import CHUNK_SIZE, ssd
from blocks.upstream import renamed


class Hydra(nn.Module):
    """A quasi-separable mixer: two scans and a diagonal, (B, L, E) to (B, L, E).

    `A_log`, `D` and `dt_bias` enter in float32 whatever the precision around them.

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel and direction.
        d_conv: Width W of the centred convolution; odd.
        expand: Inner width D as a multiple of `dim`.
        head_dim: Channels P per head; must divide D.
        num_groups: Groups G of heads with B and C of their own.
        dt_min: Smallest step size at the start.
        dt_max: Largest step size at the start.
        dt_init_floor: Lower clamp of the first step sizes.
        dt_limit: The step sizes stay in this range, always.
        learnable_init_states: Whether both scans start from a learned state instead of 0.
        conv_init: The taps start uniform in +-conv_init; None keeps the start of nn.Conv1d.
        conv_bias: Whether the convolution has a bias.
        bias: Whether `in_proj` and `out_proj` have one.
        chunk_size: Most steps per chunk of the scans; changes speed and memory only.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 64,
        d_conv: int = 7,
        expand: float = 2,
        head_dim: int = 64,
        num_groups: int = 1,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        learnable_init_states: bool = False,
        conv_init: float | None = None,
        conv_bias: bool = True,
        bias: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        super().__init__()
        if d_conv % 2 == 0:
            raise SuiteError(
                expected="an odd width, as many steps behind as ahead",
                found=f"d_conv={d_conv}",
                where="Hydra(d_conv=...)",
                cure="the published models use 7, the default",
            )
        inner = int(expand * dim)
        heads = count_heads(inner, head_dim, num_groups)
        self.num_groups = num_groups
        self.head_dim = head_dim
        self.dt_limit = (float(dt_limit[0]), float(dt_limit[1]))
        self.chunk_size = chunk_size

        convolved = inner + 4 * num_groups * d_state
        # Rows of `in_proj`: z, (x, B, C, B_b, C_b), (dt, dt_b).
        self.sizes = [inner, convolved, 2 * heads]
        self.in_proj = nn.Linear(dim, sum(self.sizes), bias=bias)
        self.conv1d = depthwise_conv(convolved, d_conv, conv_bias)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self.init_states = (
            nn.Parameter(torch.zeros(heads, head_dim, d_state)) if learnable_init_states else None
        )
        self.dt_bias = initial_dt_bias(heads, dt_min, dt_max, dt_init_floor)
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.fc_D = nn.Linear(inner, heads, bias=False)
        self.norm = GatedRMSNorm(inner, norm_before_gate=True)
        self.out_proj = nn.Linear(inner, dim, bias=bias)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the module from the constructor arguments of goombalab/hydra's `Hydra`."""
        names = UPSTREAM_NAMES | {
            "learnable_init_states": "learnable_init_states",
            "activation": None,  # "silu" and "swish" are upstream's only values, and the same
        }
        return cls(**renamed(config, names, "Hydra.from_upstream"))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scans' own."""
        own = {"A_log", "D", "dt_bias"}
        return own if self.init_states is None else own | {"init_states"}

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
        # Twice: NaN must not reach `in_proj`, nor its bias the convolution, which looks ahead.
        projected = zero_padding(self.in_proj(zero_padding(x, lengths)), lengths)
        z, xBC, dt = torch.split(projected, self.sizes, dim=-1)
        x, *BC = self._convolved(xBC)
        y = self._scans(x, BC, dt, lengths) + self._diagonal(x) * x
        y = self.norm(y.flatten(2), z)
        return zero_padding(self.out_proj(y.to(z.dtype)), lengths)

    def _convolved(self, xBC: Tensor) -> list[Tensor]:
        """The x (B, L, H, P), and B, C, B_b, C_b (B, L, G, N)."""
        ahead = self.conv1d.weight.shape[-1] // 2
        padded = F.pad(xBC, (0, 0, 0, ahead)).mT
        weight, bias = self.conv1d.weight.squeeze(1), self.conv1d.bias
        conv = causal_conv1d(padded, weight, bias, activation="silu").mT[:, ahead:]
        inner = self.sizes[0]
        x = torch.unflatten(conv[..., :inner], -1, (-1, self.head_dim))
        BC = torch.unflatten(conv[..., inner:], -1, (4, self.num_groups, -1))
        return [x, *BC.unbind(2)]

    def _scans(self, x: Tensor, BC: list[Tensor], dt: Tensor, lengths: Tensor | None) -> Tensor:
        """Everything off the diagonal, (B, L, H, P)."""
        B, C, B_b, C_b = BC
        dt, dt_b = dt.chunk(2, dim=-1)
        A = decay(self.A_log)
        init = self.init_states
        start = None if init is None else init.expand(len(x), *init.shape)
        bias, limit, size = self.dt_bias, self.dt_limit, self.chunk_size
        y = ssd(
            x, step_sizes(dt, bias, limit), A, B, C, chunk_size=size, initial_states=start,
            lengths=lengths,
        )  # fmt: skip
        y_b = ssd(
            x, step_sizes(dt_b, bias, limit), A, B_b, C_b, chunk_size=size, initial_states=start,
            lengths=lengths, reverse=True,
        )  # fmt: skip
        # One step late, each in its own time: a step sees itself on the diagonal alone.
        return F.pad(y, (0, 0, 0, 0, 1, 0))[:, :-1] + F.pad(y_b, (0, 0, 0, 0, 0, 1))[:, 1:]

    def _diagonal(self, x: Tensor) -> Tensor:
        """One weight per step and head, (B, L, H, 1), in float32 at least."""
        weight: Tensor = self.fc_D(x.flatten(2))
        D = self.D.to(torch.promote_types(weight.dtype, torch.float32))
        return (weight + D).unsqueeze(-1)
