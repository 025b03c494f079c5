"""The same selective scan as others compute it, with one signature.

All take (u, delta, A, B, C, D, z, delta_bias) and return

    y = silu(z) * (C h + D u)
    h_t = exp(s_t A) h_{t-1} + s_t u_t B_t,   s = softplus(delta + bias)

Shapes: u, delta, z and the result (B, D, L); A (D, N); B, C (B, N, L); D, delta_bias (D,). The
state is float32 whatever the streams are, as in the suite's own operator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks import selective_scan

Scan = Callable[..., Tensor]
# The recurrence alone: (u, s, A, B, C), all float32, to C h, (B, D, L).
Recurrence = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ScanPeer:
    """A way to compute the scan.

    Args:
        scan: The function.
        kind: Whether it runs as written or goes through torch.compile first.
        longest_backward: Largest L that is differentiated; `None` sets no limit.
        why: Reason of that limit.
    """

    scan: Scan
    kind: Literal["eager", "compiled"] = "eager"
    longest_backward: int | None = None
    why: str = ""


def ours(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """The suite's operator on the backend it chooses itself."""
    return selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True)


def _around(recurrence: Recurrence) -> Scan:
    """Adds what surrounds a recurrence: float32, step sizes, skip and gate."""

    def scan(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        z: Tensor,
        bias: Tensor,
    ) -> Tensor:
        x, gate = u.float(), z.float()
        s = F.softplus(delta.float() + bias[:, None])
        y = recurrence(x, s, A, B.float(), C.float()) + D[:, None] * x
        return (y * F.silu(gate)).to(u.dtype)

    return scan


def _loop(u: Tensor, s: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The loop one would write, in its best form.

    `unbind` gives all steps at once: its backward is one stack, where indexing `x[:, :, t]` would
    add a whole tensor of zeros for every step. Nothing of size (B, D, L, N) is made at once.
    """
    h = u.new_zeros(*u.shape[:2], A.shape[1])
    ys = []
    for u_t, s_t, B_t, C_t in zip(u.unbind(2), s.unbind(2), B.unbind(2), C.unbind(2), strict=True):
        decay = torch.exp(s_t[..., None] * A)
        h = decay * h + (s_t * u_t)[..., None] * B_t[:, None]
        ys.append((h * C_t[:, None]).sum(-1))
    return torch.stack(ys, 2)


def _associative(u: Tensor, s: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The prototype in torch of a parallel scan over pairs (decay, state), in its generic mode.

    The other mode needs CUDA and torch.compile. Time stands second, the fastest place of those
    tried on a CPU.
    """
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    pairs = _materialised(u, s, A, B)
    h_BLDN: Tensor = associative_scan(combine, pairs, 1, combine_mode="generic")[1]
    y: Tensor = (h_BLDN @ C.mT[..., None]).squeeze(-1).mT
    return y


def _mambapy(u: Tensor, s: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The parallel scan of alxndrTL/mamba.py, with its own backward, used as its mixer does."""
    from mambapy.pscan import pscan

    h_BLDN: Tensor = pscan(*_materialised(u, s, A, B))
    y: Tensor = (h_BLDN @ C.mT[..., None]).squeeze(-1).mT
    return y


def _mamba_ssm_formula(u: Tensor, s: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """How state-spaces/mamba defines the scan where it has no kernel, transcribed.

    Decays and inputs are made for all steps, (B, D, L, N), then read by index step by step.
    """
    decay = torch.exp(torch.einsum("bdl,dn->bdln", s, A))
    inputs = torch.einsum("bdl,bnl,bdl->bdln", s, B, u)
    h = decay.new_zeros(decay.shape[0], decay.shape[1], decay.shape[3])
    ys = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + inputs[:, :, t]
        ys.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    return torch.stack(ys, 2)


def _materialised(u: Tensor, s: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and inputs of every step, (B, L, D, N)."""
    s_BLD = s.mT
    return torch.exp(s_BLD[..., None] * A), (s_BLD * u.mT)[..., None] * B.mT[:, :, None]


@cache
def _compiled() -> Callable[..., Any]:
    # Made on first use: even asking for it imports the compiler. Sizes are constants, or a second
    # shape would be compiled for any shape and run slower; nothing may fall back to eager silently.
    return torch.compile(_around(_associative), dynamic=False, fullgraph=True)


def _compiled_associative(*operands: Tensor) -> Tensor:
    """The same under torch.compile."""
    out: Tensor = _compiled()(*operands)
    return out


def _mamba_ssm(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """The CUDA kernel of state-spaces/mamba, where it was built."""
    return selective_scan(
        u, delta, A, B, C, D, z, bias, delta_softplus=True, backend="mamba_ssm"
    )  # fmt: skip


# Peers that a CPU does not have.
CUDA_SCAN_PEERS = {"mamba_ssm": ScanPeer(_mamba_ssm)}
SCAN_PEERS = {
    "torch_loop": ScanPeer(_around(_loop)),
    "associative_scan": ScanPeer(_around(_associative)),
    "associative_scan_compiled": ScanPeer(_compiled_associative, "compiled"),
    "mamba_ssm_formula": ScanPeer(
        _around(_mamba_ssm_formula),
        longest_backward=1024,
        why="its backward is quadratic in L: every indexed step fills a whole tensor with zeros",
    ),
    "mambapy": ScanPeer(_around(_mambapy)),
}
