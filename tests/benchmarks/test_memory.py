"""The counters of memory, on functions whose need is known."""

import torch
from torch import Tensor

from benchmarks.memory import peak_bytes, saved_bytes

N = 250_000
MEGABYTE = 4 * N


def leaf() -> Tensor:
    return torch.randn(N, requires_grad=True)


def close(found: int, expected: int) -> bool:
    """Equal but for the handful of bytes of scalars."""
    return expected <= found < expected + 1000


def test_a_kept_result_counts_once_however_often_it_is_kept() -> None:
    x = leaf()
    # exp keeps its result, and the product keeps the same storage twice.
    assert saved_bytes(lambda: x.exp().square()) == MEGABYTE
    assert saved_bytes(lambda: (e := x.exp()) * e) == MEGABYTE


def test_a_kept_slice_counts_as_the_storage_it_holds() -> None:
    x = leaf()
    assert saved_bytes(lambda: (x * 2)[:10].exp().sin()[:5].square()) == 2 * 40
    assert saved_bytes(lambda: (x * 2)[:10].sin()) == MEGABYTE


def test_parameters_do_not_count_and_inputs_do() -> None:
    x, weight = leaf(), leaf()
    assert saved_bytes(lambda: x * weight) == 2 * MEGABYTE
    assert saved_bytes(lambda: x * weight, [weight]) == MEGABYTE


def test_the_peak_counts_what_lives_at_once() -> None:
    x = torch.randn(N)

    def chain() -> Tensor:
        y = x + 1
        y = y * 2  # The sum dies when the product is there.
        return y.exp_().sum()

    assert close(peak_bytes(chain), 2 * MEGABYTE)
    assert close(peak_bytes(lambda: [x + 1, x + 2, x + 3]), 3 * MEGABYTE)


def test_the_peak_of_a_step_spans_forward_and_backward() -> None:
    x, grad = leaf(), torch.randn(N)

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(x.exp(), [x], grad)

    step()
    # The kept result and the gradient.
    assert close(peak_bytes(step), 2 * MEGABYTE)


def test_temporaries_inside_an_operator_count() -> None:
    @torch.library.custom_op("bimamba_test::wasteful", mutates_args=())
    def wasteful(x: Tensor) -> Tensor:
        copies = [x.clone() for _ in range(5)]
        return torch.stack(copies).sum(0)

    x = torch.randn(N)
    wasteful(x)
    assert close(peak_bytes(lambda: wasteful(x)), 11 * MEGABYTE)
