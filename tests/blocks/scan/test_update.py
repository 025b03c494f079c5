"""A compiled step equals the formula, whatever the sizes, and leaves gradients to the formula."""

import pytest
import torch
from torch import Tensor

from blocks.causal_conv import causal_conv1d_update
from blocks.cpu.steps import serves
from blocks.scan import update
from blocks.scan.update import selective_state_update


def drawn(batch: int, channels: int, states: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """State and operands; B and C are slices of wider rows, as a mixer has them."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=dtype)

    both = normal(batch, 2 * states + 3)[:, 3:]
    u_z = normal(batch, 2 * channels)
    return (
        normal(batch, channels, states), u_z[:, :channels], normal(batch, channels),
        -normal(channels, states).exp(), both[:, :states], both[:, states:], normal(channels),
        u_z[:, channels:], normal(channels),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (3, 5, 3), (17, 128, 16), (2, 33, 64), (0, 8, 4), (40, 512, 16)]
)
def test_a_compiled_step_equals_the_formula(
    sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    operands = drawn(*sizes, dtype)
    state, expected_state = operands[0].clone(), operands[0].clone()
    assert serves(state, *operands[1:])
    with torch.no_grad():
        found = [selective_state_update(state, *operands[1:]) for _ in range(3)]
        monkeypatch.setattr(update, "serves", lambda *_: False)
        expected = [selective_state_update(expected_state, *operands[1:]) for _ in range(3)]
    size = 1e-5 if dtype == torch.float32 else 1e-12
    near = {"rtol": size, "atol": size}
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), **near)
    torch.testing.assert_close(state, expected_state, **near)


def test_a_step_that_wants_a_gradient_has_one() -> None:
    operands = [x.double() for x in drawn(2, 6, 4, torch.float64)]
    state = operands.pop(0)
    wanting = [x.clone().requires_grad_() for x in operands]
    assert not serves(state, *wanting)
    assert torch.autograd.gradcheck(
        lambda *x: selective_state_update(state.clone(), *x), tuple(wanting)
    )


def test_more_states_than_the_loops_hold_take_the_formula() -> None:
    operands = drawn(2, 4, 65, torch.float64)
    state = operands[0].clone()
    found = selective_state_update(state, *operands[1:])
    assert found.isfinite().all() and not torch.equal(state, operands[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("bias", [False, True])
def test_a_compiled_convolution_step_equals_many_at_once(
    width: int, bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2 * 37, 9, dtype=dtype)[:, :37]
    weight, offset = torch.randn(37, width, dtype=dtype), torch.randn(37, dtype=dtype)
    for stored in {max(width - 1, 1), width, width + 2}:
        state, expected_state = (torch.zeros(3, 37, stored, dtype=dtype) for _ in range(2))
        expected = causal_conv1d_update(x, expected_state, weight, offset if bias else None, "silu")
        steps = [
            causal_conv1d_update(x[..., t], state, weight, offset if bias else None, "silu")
            for t in range(9)
        ]
        near = 1e-6 if dtype == torch.float32 else 1e-13
        torch.testing.assert_close(torch.stack(steps, -1), expected, rtol=near, atol=near)
        assert torch.equal(state, expected_state)
