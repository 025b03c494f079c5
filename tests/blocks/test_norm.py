import pytest
import torch

from blocks import RMSNorm


def test_it_equals_torchs_own_norm_with_gradients() -> None:
    ours, theirs = RMSNorm(6).double(), torch.nn.RMSNorm(6, eps=1e-5).double()
    with torch.no_grad():
        ours.weight.copy_(torch.linspace(-1, 2, 6))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(x)
    mine = torch.autograd.grad(ours(x), (x, ours.weight), seed)
    for a, b in zip(mine, torch.autograd.grad(theirs(x), (x, theirs.weight), seed), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_float16_does_not_overflow_inside() -> None:
    x = torch.full((2, 8), 30000.0, dtype=torch.float16)
    y = RMSNorm(8)(x)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, torch.ones_like(y))


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_it_emits_the_autocast_type(given: torch.dtype) -> None:
    x = torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = RMSNorm(8)(x.to(given))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), RMSNorm(8)(x), rtol=0.02, atol=0.02)


def test_float64_stays_float64_even_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert RMSNorm(8)(torch.randn(2, 8, dtype=torch.float64)).dtype == torch.float64


def test_eps_keeps_zero_rows_finite() -> None:
    assert (RMSNorm(4)(torch.zeros(1, 4)) == 0).all()
    assert list(RMSNorm(4).state_dict()) == ["weight"]
