"""Other ways to mix a sequence of the same width: all map (B, L, E) to (B, L, E).

`TwoCallMixer` and `MambapyMixer` compute what `BiMamba` computes, with its very weights.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.frozen_mixer import FrozenMixer
from blocks import BiMamba, selective_scan


class TwoCallMixer(nn.Module):
    """Vim's "v2" as one runs it on any unidirectional scan: flip, call, flip back.

    What mamba-ssm or hustvl/Vim would do on our scan: two calls with a gate each, nn.Conv1d.

    Args:
        mixer: Holds the weights, which are shared.
        backend: Of the scan; None takes ours.
    """

    def __init__(self, mixer: BiMamba, backend: str | None = None) -> None:
        super().__init__()
        self.mixer, self.backend = mixer, backend

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, L, E)."""
        m = self.mixer
        xz = m.in_proj(x).mT
        y = self._direction(xz, m.conv1d, m.x_proj, m.dt_proj, m.A_log, m.D)
        y_b = self._direction(xz.flip(-1), m.conv1d_b, m.x_proj_b, m.dt_proj_b, m.A_b_log, m.D_b)
        out: Tensor = m.out_proj((y + y_b.flip(-1)).mT)
        return out

    def _direction(
        self, xz: Tensor, conv: nn.Module, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor,
        D: Tensor,
    ) -> Tensor:  # fmt: skip
        x, z = xz.chunk(2, dim=1)
        u = F.silu(conv(x)[..., : x.shape[-1]])
        states = A_log.shape[1]
        dt, B, C = x_proj(u.mT).split([dt_proj.in_features, states, states], dim=-1)
        delta = F.linear(dt, dt_proj.weight).mT
        A = -torch.exp(A_log)
        return selective_scan(
            u, delta, A, B.mT, C.mT, D, z, dt_proj.bias, delta_softplus=True, backend=self.backend
        )


class MambapyMixer(nn.Module):
    """The mixer of alxndrTL/mamba.py, once in each direction.

    The package has no bidirectional block of this kind, so it projects in and out twice; that is
    a small part of its time.

    Args:
        mixer: Gives the weights, which are copied.
    """

    def __init__(self, mixer: BiMamba) -> None:
        super().__init__()
        from mambapy.mamba import MambaBlock, MambaConfig

        dim, states = mixer.in_proj.in_features, mixer.A_log.shape[1]
        config = MambaConfig(
            d_model=dim, n_layers=1, d_state=states, d_conv=mixer.conv1d.kernel_size[0]
        )
        blocks = [MambaBlock(config) for _ in range(2)]
        weights = mixer.state_dict()
        blocks[0].load_state_dict({name: weights[name] for name in blocks[0].state_dict()})
        own = {name: _of_backward_branch(name) for name in blocks[1].state_dict()}
        blocks[1].load_state_dict({name: weights[theirs] for name, theirs in own.items()})
        self.forward_block, self.backward_block = blocks

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, L, E)."""
        y: Tensor = self.forward_block(x) + self.backward_block(x.flip(1)).flip(1)
        return y


class SoftmaxAttention(nn.Module):
    """Multi-head self-attention of equal width, without dropout.

    Args:
        dim: Width E.
        head_dim: Width of a head; Vim-Tiny's rival DeiT-Tiny has 3 of 64.
        fused: torch's scaled_dot_product_attention, which keeps no L x L matrix; else matrix
            products and a softmax as written in the paper.
    """

    def __init__(self, dim: int, head_dim: int = 64, fused: bool = True) -> None:
        super().__init__()
        self.head_dim, self.fused = head_dim, fused
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (B, L, E)."""
        heads = self.qkv(x).unflatten(-1, (3, -1, self.head_dim)).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.mT * self.head_dim**-0.5).softmax(-1) @ v
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out


# Built from our mixer, whose weights some share.
MIXER_PEERS: dict[str, Callable[[BiMamba], nn.Module]] = {
    "frozen_mixer": lambda mixer: FrozenMixer(mixer.in_proj.in_features, mixer.A_log.shape[1]),
    "two_call": TwoCallMixer,
    "mambapy": MambapyMixer,
    "attention_naive": lambda mixer: SoftmaxAttention(mixer.in_proj.in_features, fused=False),
    "attention_fused": lambda mixer: SoftmaxAttention(mixer.in_proj.in_features),
}
# Peers that a CPU does not have: two calls of mamba-ssm's own kernel, as hustvl/Vim makes them.
CUDA_MIXER_PEERS: dict[str, Callable[[BiMamba], nn.Module]] = {
    "two_call_mamba_ssm": lambda mixer: TwoCallMixer(mixer, "mamba_ssm"),
}
# These compute the same function as ours and are checked before they are timed.
SAME_FUNCTION = ("two_call", "two_call_mamba_ssm", "mambapy")


def _of_backward_branch(name: str) -> str:
    """Key of the backward branch's weight in BiMamba: `conv1d.bias` becomes `conv1d_b.bias`."""
    first, dot, rest = name.partition(".")
    if first in {"in_proj", "out_proj"}:
        return name
    return {"A_log": "A_b_log"}.get(first, f"{first}_b") + dot + rest
