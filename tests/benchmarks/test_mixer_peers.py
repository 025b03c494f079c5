"""Mixers that share our weights give our results; the frozen one uses all it has."""

from pathlib import Path

import pytest
import torch

from benchmarks.frozen_mixer import FrozenMixer
from benchmarks.mixer_peers import MIXER_PEERS, SAME_FUNCTION, SoftmaxAttention
from blocks import BiMamba

SHAPE = (2, 11, 32)


@pytest.mark.parametrize("name", [name for name in SAME_FUNCTION if name in MIXER_PEERS])
def test_a_mixer_with_our_weights_has_our_values_and_gradients(name: str) -> None:
    if name == "mambapy":
        pytest.importorskip("mambapy")
    torch.manual_seed(0)
    ours, x = BiMamba(32, backward_dt_init="matched"), torch.randn(SHAPE)
    grad, found = torch.randn(SHAPE), []
    for mixer in (ours, MIXER_PEERS[name](ours)):
        leaf = x.clone().requires_grad_()
        y = mixer(leaf)
        found.append((y, *torch.autograd.grad(y, [leaf], grad)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_the_frozen_mixer_sends_a_gradient_into_every_parameter() -> None:
    torch.manual_seed(0)
    mixer = FrozenMixer(32)
    y = mixer(torch.randn(SHAPE))
    assert y.shape == SHAPE
    torch.autograd.backward(y.square().sum())
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_frozen_mixer_has_the_weights_of_ours() -> None:
    def sizes(mixer: torch.nn.Module) -> list[int]:
        return sorted(parameter.numel() for parameter in mixer.parameters())

    assert sizes(FrozenMixer(192)) == sizes(BiMamba(192))


def test_the_frozen_mixer_shares_no_code_with_blocks() -> None:
    source = Path(__file__).parents[2] / "benchmarks" / "frozen_mixer.py"
    assert "import blocks" not in source.read_text()
    assert "from blocks" not in source.read_text()


def test_both_attentions_are_one_function() -> None:
    torch.manual_seed(0)
    fused, naive = SoftmaxAttention(64, fused=True), SoftmaxAttention(64, fused=False)
    naive.load_state_dict(fused.state_dict())
    x = torch.randn(2, 9, 64)
    torch.testing.assert_close(fused(x), naive(x), rtol=1e-4, atol=1e-5)
