"""The bidirectional Mamba block of the motion fork, with the keys of syrelink/afford-motion.

    mixer:  u, z = in_proj(input);  u = silu(causal conv_x(u));  delta, B, C = projections of u
            output = out_proj([scan(u, delta, -exp(A_log), B, C, D) ; silu(z)])
    block:  h = norm1(x);  x = x + fusion_proj([mixer_forward(h) ; mixer_backward(h)])
            x = x + mlp(norm2(x))

The mixer is a Mamba whose gate is concatenated instead of multiplied. Source:
`models/trick/mamba_block.py`. The backward mixer convolves and scans from the last step to the
first; nothing is ever flipped.

Shapes: B batch, L time, E outer width `dim`, D inner width expand E, N `d_state`, R `dt_rank`,
W `d_conv`.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.causal_conv import causal_conv1d
from blocks.drop_path import DropPath
from blocks.errors import SuiteError
from blocks.mamba import (
    check_sequence,
    decay,
    depthwise_conv,
    initial_A_log,
    select,
    zero_padding,
)
from blocks.mlp import Mlp
from blocks.scan.dispatch import selective_scan
from blocks.upstream import renamed

UPSTREAM_NAMES = {
    "d_model": "dim",
    "d_state": "d_state",
    "d_conv": "d_conv",
    "expand": "expand",
    "dt_rank": "dt_rank",
    "mlp_ratio": "mlp_ratio",
    "drop": "dropout",
    "drop_path": "drop_path",
}


class ConcatMamba(nn.Module):
    """A selective scan beside its gate, in one direction of time, (B, L, E) to (B, L, E).

    `A_log`, `D` and `dt_proj.bias` enter the scan in float32 whatever the precision around it.
    `dt_proj` starts as any nn.Linear, as upstream, so the step sizes start near 0.69.

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel.
        d_conv: Width W of the causal convolution.
        expand: Inner width D as a multiple of `dim`.
        dt_rank: Rank R of the step-size projection; "auto" is ceil(dim / 16).
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        inner = int(expand * dim)
        rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv_x = depthwise_conv(inner, d_conv, bias=True)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = initial_A_log(inner, d_state)
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(2 * inner, dim, bias=False)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scan's own."""
        return {"A_log", "D", "dt_proj.bias"}

    def forward(self, x: Tensor, lengths: Tensor | None = None, reverse: bool = False) -> Tensor:
        """Mixes a whole sequence.

        Args:
            x: Input, (B, L, E).
            lengths: Valid steps per sample, (B,) integers; beyond them the output is 0.
            reverse: Whether time runs from the last valid step to the first.

        Returns:
            Output, (B, L, E).
        """
        check_sequence(x, self.in_proj.in_features)
        u, z = self.in_proj(zero_padding(x, lengths)).mT.chunk(2, dim=1)
        u = causal_conv1d(
            u, self.conv_x.weight.squeeze(1), self.conv_x.bias, activation="silu",
            reverse=reverse, lengths=lengths,
        )  # fmt: skip
        delta, B, C = select(u, self.x_proj.weight, self.dt_proj.weight)
        # Upstream adds the bias in `dt_proj` and again in the scan; kept for checkpoint parity.
        y = selective_scan(
            u, delta, decay(self.A_log), B, C, self.D, delta_bias=2 * self.dt_proj.bias,
            delta_softplus=True, reverse=reverse, lengths=lengths,
        )  # fmt: skip
        # Both halves are 0 beyond the lengths, and `out_proj` has no bias.
        out: Tensor = self.out_proj(torch.cat([y, F.silu(z)], dim=1).mT)
        return out


class BidirectionalMambaBlock(nn.Module):
    """LayerNorm, a `ConcatMamba` per direction, their fusion, and an MLP, (B, L, E) to (B, L, E).

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel.
        d_conv: Width W of the causal convolutions.
        expand: Inner width D of the mixers as a multiple of `dim`.
        dt_rank: Rank R of the step-size projections; "auto" is ceil(dim / 16).
        mlp_ratio: Hidden width of the MLP as a multiple of `dim`; 2 in the motion models.
        dropout: Probability of zeroing an element after the fusion and in the MLP, in [0, 1).
        drop_path: Probability of dropping either branch of a sample, in [0, 1).
        padding: What the backward mixer does with padding. "exact" starts at each sample's last
            valid step, so that a result does not depend on the padding. "upstream" runs through
            the zeroed padding, where the convolution's bias enters the state: how the fork's
            checkpoints were trained, with motions padded to 196 frames.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | Literal["auto"] = "auto",
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        padding: Literal["exact", "upstream"] = "exact",
    ) -> None:
        super().__init__()
        if padding not in ("exact", "upstream"):
            raise SuiteError(
                expected="exact or upstream",
                found=repr(padding),
                where="BidirectionalMambaBlock(padding=...)",
                cure="use upstream for checkpoints of the fork, else exact, the default",
            )
        self.padding = padding
        self.norm1 = nn.LayerNorm(dim)
        self.mixer_forward = ConcatMamba(dim, d_state, d_conv, expand, dt_rank)
        self.mixer_backward = ConcatMamba(dim, d_state, d_conv, expand, dt_rank)
        self.fusion_proj = nn.Linear(2 * dim, dim, bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), dropout)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    @classmethod
    def from_upstream(
        cls, config: Mapping[str, Any], padding: Literal["exact", "upstream"] = "upstream"
    ) -> Self:
        """Builds the module from the constructor arguments of the fork's block of this name."""
        arguments = renamed(config, UPSTREAM_NAMES, "BidirectionalMambaBlock.from_upstream")
        return cls(**{"mlp_ratio": 4.0} | arguments, padding=padding)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: Input, (B, L, E).
            padding_mask: True at padding, (B, L) booleans. There the output is 0, and what the
                input holds (NaN included) changes neither results nor gradients. With
                padding="exact" all padding must trail, which is checked outside torch.compile.

        Returns:
            Output, (B, L, E).

        Raises:
            SuiteError: The mask does not fit the input, or has padding before valid steps where
                padding="exact".
        """
        check_sequence(x, self.norm1.normalized_shape[0])
        lengths = None if padding_mask is None else self._lengths(padding_mask, x)
        x = _blank(x, padding_mask)
        h = _blank(self.norm1(x), padding_mask)
        both = self.mixer_forward(h, lengths), self.mixer_backward(h, lengths, reverse=True)
        x = x + self.drop_path(self.dropout(self.fusion_proj(torch.cat(both, dim=-1))))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return _blank(x, padding_mask)

    def _lengths(self, padding_mask: Tensor, x: Tensor) -> Tensor | None:
        """Valid steps per sample, None where the mixers are to run through the padding."""
        if padding_mask.dtype != torch.bool or padding_mask.shape != x.shape[:2]:
            raise SuiteError(
                expected=f"booleans of shape {tuple(x.shape[:2])}, True at padding",
                found=f"{padding_mask.dtype} of shape {tuple(padding_mask.shape)}",
                where="BidirectionalMambaBlock.forward(padding_mask=...)",
                cure="pass one boolean per step of the input",
            )
        if self.padding == "upstream":
            return None
        # A look at the values would break a compiled graph.
        resumes = padding_mask[:, :-1] & ~padding_mask[:, 1:]
        if not torch.compiler.is_compiling() and resumes.any():
            raise SuiteError(
                expected='padding behind all valid steps, for padding="exact"',
                found="padding before valid steps",
                where="BidirectionalMambaBlock.forward(padding_mask=...)",
                cure='move the padding to the end, or build the block with padding="upstream"',
            )
        return (~padding_mask).sum(-1)


def _blank(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """(B, L, E) with zeros at padding."""
    return x if padding_mask is None else x.masked_fill(padding_mask.unsqueeze(-1), 0)
