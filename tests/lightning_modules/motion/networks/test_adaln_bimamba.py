"""Our denoiser: padding, words, erased text, its start as the identity."""

from typing import Any

import pytest
import torch

from lightning_modules.motion import CMDM, AdaLNBiMamba

SMALL: dict[str, Any] = {
    "in_features": 5, "dim": 16, "depth": 2, "num_heads": 2, "dim_feedforward": 24, "text_dim": 8,
}  # fmt: skip


def trained() -> AdaLNBiMamba:
    """A network in which nothing is zero any more."""
    torch.manual_seed(0)
    network = AdaLNBiMamba(**SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@torch.no_grad()
def test_a_sample_does_not_notice_its_padding() -> None:
    network = trained()
    x, time, text = torch.randn(2, 12, 5), torch.tensor([3, 700]), torch.randn(2, 6, 8)
    frames = torch.arange(12) >= torch.tensor([[12], [7]])
    words = torch.arange(6) >= torch.tensor([[6], [2]])
    both = network(x, time, text, frames, words)
    alone = network(x[1:, :7], time[1:], text[1:, :2])
    torch.testing.assert_close(both[1:, :7], alone, rtol=0, atol=1e-5)
    spoiled = x.clone()
    spoiled[1, 7:] = 1e4
    again = network(spoiled, time, text, frames, words)
    torch.testing.assert_close(again[1, :7], both[1, :7], rtol=0, atol=1e-5)


@torch.no_grad()
def test_time_and_each_word_reach_each_frame() -> None:
    network = trained()
    x, time, text = torch.randn(1, 6, 5), torch.tensor([3]), torch.randn(1, 4, 8)
    out = network(x, time, text)
    for place in range(4):
        other = text.clone()
        other[:, place] += 1
        assert ((network(x, time, other) - out).abs().amax(-1) > 1e-5).all()
    assert ((network(x, time + 500, text) - out).abs().amax(-1) > 1e-4).all()
    erased = network(x, time, text, erase_text=torch.tensor([True]))
    torch.testing.assert_close(erased, network(x, time, torch.zeros_like(text)))


@torch.no_grad()
def test_blocks_begin_as_the_identity() -> None:
    network = AdaLNBiMamba(**SMALL).eval()
    h = torch.randn(2, 6, 16)
    modulation, words = torch.zeros(2, 1, 6, 16), torch.randn(2, 3, 16)
    assert torch.equal(network.blocks[0](h, modulation, words, None, None), h)


def test_every_parameter_learns() -> None:
    network = trained().train()
    network(
        torch.randn(2, 6, 5), torch.tensor([3, 9]), torch.randn(2, 4, 8)
    ).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({"arch": "trans_enc", "num_layers": (1,) * 5}, 12.20),
        ({"arch": "trans_mamba", "num_layers": (1,) * 5}, 16.12),
        ({"arch": "bimamba"}, 20.03),
        ({"arch": "trans_dec", "num_layers": (1,) * 5}, 25.66),
    ],
)
def test_sizes_are_the_published_ones(options: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        network = CMDM(**options, contact="points")
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_it_is_as_large_as_the_transformer_it_is_compared_with() -> None:
    with torch.device("meta"):
        ours = AdaLNBiMamba()
        theirs = CMDM(arch="trans_enc", num_layers=(1,) * 5)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.01
