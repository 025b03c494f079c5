"""Gated attention against its formula, written out."""

import pytest
import torch
from torch import Tensor

from blocks.gated_attention import GatedAttention


def by_hand(mixer: GatedAttention, x: Tensor) -> Tensor:
    """One query at a time."""
    rows = []
    for sample in x:
        q, k, v, z = (sample @ part.T for part in mixer.in_proj.weight.chunk(4))
        inner = q.shape[-1]
        seen = []
        for query, gate in zip(q, z, strict=True):
            products = torch.stack([query @ key for key in k]) / inner**0.5
            weights = products.exp() / products.exp().sum()
            mixed = sum(w * value for w, value in zip(weights, v, strict=True))
            seen.append(mixed * (gate / (1 + (-gate).exp())))
        rows.append(torch.stack(seen) @ mixer.out_proj.weight.T)
    return torch.stack(rows)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("length", "expand"), [(1, 1.0), (5, 1.0), (4, 1.5)])
def test_equals_its_formula(fused: bool, length: int, expand: float) -> None:
    torch.manual_seed(0)
    mixer = GatedAttention(8, expand, fused=fused).double()
    x = torch.randn(2, length, 8, dtype=torch.float64)
    assert torch.allclose(mixer(x), by_hand(mixer, x), atol=1e-12)


def test_fused_and_written_out_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    mixer, x = GatedAttention(8, scale=0.3), torch.randn(2, 6, 8)
    found = []
    for fused in (True, False):
        mixer.fused = fused
        mixer.zero_grad()
        mixer(x).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in mixer.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_closed_gate_lets_nothing_through() -> None:
    mixer = GatedAttention(8)
    with torch.no_grad():
        mixer.in_proj.weight[24:] = 0
    assert torch.equal(mixer(torch.randn(1, 3, 8)), torch.zeros(1, 3, 8))


def test_there_is_no_order_among_tokens() -> None:
    mixer, x, order = GatedAttention(8), torch.randn(2, 6, 8), torch.randperm(6)
    assert torch.allclose(mixer(x)[:, order], mixer(x[:, order]), atol=1e-6)
