import pytest
import torch
from torch import nn

from blocks import BiMamba, ResidualBlock, RMSNorm


def test_add_then_norm_then_mixer() -> None:
    block = ResidualBlock(nn.Linear(4, 4), RMSNorm(4))
    hidden, residual = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    out, stream = block(hidden, residual)
    torch.testing.assert_close(stream, hidden + residual)
    torch.testing.assert_close(out, block.mixer(block.norm(hidden + residual)))
    out, stream = block(hidden)
    torch.testing.assert_close(stream, hidden)
    torch.testing.assert_close(out, block.mixer(block.norm(hidden)))


def test_drop_path_acts_on_the_incoming_hidden_but_not_on_the_first_block() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(nn.Identity(), nn.LayerNorm(4), drop_path=0.5)
    hidden, residual = torch.ones(64, 3, 4), torch.zeros(64, 3, 4)
    assert torch.equal(block(hidden)[1], hidden)
    _, stream = block(hidden, residual)
    assert set(stream.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(block.eval()(hidden, residual)[1], hidden)


@pytest.mark.parametrize("wide", [True, False])
def test_the_residual_stream_is_float32_when_asked(wide: bool) -> None:
    block = ResidualBlock(nn.Linear(4, 4), RMSNorm(4), residual_in_fp32=wide).bfloat16()
    out, stream = block(torch.randn(2, 3, 4).bfloat16())
    assert out.dtype == torch.bfloat16
    assert stream.dtype == (torch.float32 if wide else torch.bfloat16)


def test_under_autocast_layers_are_narrow_and_the_stream_wide() -> None:
    blocks = [ResidualBlock(BiMamba(8), RMSNorm(8)) for _ in range(2)]
    hidden, residual = torch.randn(2, 5, 8), None
    with torch.autocast("cpu", torch.bfloat16):
        for block in blocks:
            hidden, residual = block(hidden, residual)
    assert hidden.dtype == torch.bfloat16 and residual.dtype == torch.float32


def test_lengths_reach_the_mixer() -> None:
    block, lengths = ResidualBlock(BiMamba(8), RMSNorm(8)), torch.tensor([5, 2])
    out, _ = block(torch.randn(2, 5, 8), lengths=lengths)
    assert (out[1, 2:] == 0).all() and (out[1, :2] != 0).any()


def test_float64_and_keys_are_kept() -> None:
    block = ResidualBlock(nn.Linear(4, 4), RMSNorm(4), drop_path=0.1).double()
    assert block(torch.randn(1, 2, 4, dtype=torch.float64))[1].dtype == torch.float64
    assert set(block.state_dict()) == {"norm.weight", "mixer.weight", "mixer.bias"}
