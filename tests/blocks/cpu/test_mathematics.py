"""Elementary functions of the compiled kernels against NumPy and torch in more digits.

Bounds are in units of eps. A polynomial whose coefficients are fitted in double precision costs up
to 5 at the ends of its interval; where the argument of the exponential is a rounded product of x,
the relative error of the result grows by |x| eps.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import carray

from blocks.cpu.compilation import compile_kernel
from blocks.cpu.mathematics import (
    copy_lanes,
    exp2,
    sigmoid,
    softplus,
    softplus_slope,
    stack,
    sum_lanes,
    transpose,
)

PRECISIONS = pytest.mark.parametrize("real", [np.float32, np.float64], ids=["single", "double"])
# Exact enough even where it is a double, which adds an eps to the bounds of double precision.
LONG = np.longdouble


def mapped(function: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The function of every element, compiled."""

    def run(x, y):  # noqa: ANN001, ANN202
        for i in range(x.size):
            y[i] = function(x[i])

    kernel = compile_kernel(run, __file__)

    def apply(x: np.ndarray) -> np.ndarray:
        y = np.empty_like(x)
        kernel(x, y)
        return y

    return apply


EXP2, SIGMOID, SOFTPLUS, SLOPE = map(mapped, (exp2, sigmoid, softplus, softplus_slope))


def relative_error(ours: np.ndarray, exact: np.ndarray, real: type) -> np.ndarray:
    """In eps of the precision."""
    return np.abs(ours.astype(LONG) - exact) / exact / np.finfo(real).eps


def exact_sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(LONG)))


def exact_softplus(x: np.ndarray) -> np.ndarray:
    """As torch has it: the identity above 20."""
    wide = x.astype(LONG)
    return np.where(x > 20, wide, np.log1p(np.exp(np.minimum(wide, 20))))


def wide_range(real: type, lowest: float, highest: float) -> np.ndarray:
    """Even steps, and numbers of both signs close to 0."""
    rng = np.random.default_rng(0)
    tiny = rng.choice([-1, 1], 5000) * 10.0 ** rng.uniform(-30, 0, 5000)
    return np.concatenate([np.linspace(lowest, highest, 50_001), tiny]).astype(real)


@PRECISIONS
def test_powers_of_two_are_right_to_a_few_last_places(real: type) -> None:
    limits = np.finfo(real)
    x = wide_range(real, limits.minexp, limits.maxexp - 0.51)
    assert relative_error(EXP2(x), np.exp2(x.astype(LONG)), real).max() < 6
    whole = np.arange(limits.minexp, limits.maxexp, dtype=real)
    assert (EXP2(whole) == np.ldexp(real(1), whole.astype(int))).all()


@PRECISIONS
def test_powers_of_two_are_zero_below_and_infinite_above_the_normal_numbers(real: type) -> None:
    limits = np.finfo(real)
    below = np.nextafter(real(limits.minexp), real(-np.inf))
    assert (EXP2(np.array([below, limits.minexp - 10, limits.min, -np.inf], real)) == 0).all()
    above = np.array([limits.maxexp, limits.maxexp + 10, limits.max, np.inf], real)
    assert np.isposinf(EXP2(above)).all()


@PRECISIONS
def test_the_sigmoid_is_right_at_both_ends(real: type) -> None:
    lowest = np.log(np.finfo(real).tiny) + 1
    x = wide_range(real, lowest, -lowest)
    assert (relative_error(SIGMOID(x), exact_sigmoid(x), real) < 4 + np.abs(x)).all()
    ends = np.array([-np.inf, 2 * lowest, -2 * lowest, np.inf], real)
    assert SIGMOID(ends).tolist() == [0, 0, 1, 1]


@PRECISIONS
def test_softplus_keeps_its_digits_where_it_is_tiny(real: type) -> None:
    x = wide_range(real, np.log(np.finfo(real).tiny) + 1, 100)
    # Left of 0 it is an exponential, right of it a sum of two positive numbers.
    bound = 6 + np.maximum(-x, 0)
    assert (relative_error(SOFTPLUS(x), exact_softplus(x), real) < bound).all()


@PRECISIONS
def test_softplus_is_the_identity_above_20_and_exactly_0_where_it_underflows(real: type) -> None:
    x = np.array([20.5, 88.0, 300.0, 1e30, np.inf], real)
    assert (SOFTPLUS(x) == x).all()
    below = np.log(np.finfo(real).tiny) - 1
    assert (SOFTPLUS(np.array([below, 10 * below, -1e30, -np.inf], real)) == 0).all()


@PRECISIONS
def test_softplus_and_its_slope_change_over_where_those_of_torch_do(real: type) -> None:
    x = np.array([20, np.nextafter(real(20), real(21))], real)
    at, above = SOFTPLUS(x)
    assert above == x[1]
    np.testing.assert_allclose(at, F.softplus(torch.from_numpy(x))[0].item(), rtol=1e-6)
    assert SLOPE(x)[1] == 1
    steps = torch.from_numpy(wide_range(real, -60, 40)).requires_grad_()
    (slope,) = torch.autograd.grad(F.softplus(steps).sum(), steps)
    exact = exact_sigmoid(steps.detach().numpy())
    ours = SLOPE(steps.detach().numpy())
    assert (relative_error(ours, np.where(ours == 1, 1, exact), real) < 4 + steps.abs().numpy(
        force=True
    )).all()  # fmt: skip
    np.testing.assert_allclose(ours, slope.numpy(), rtol=80 * np.finfo(real).eps)


@PRECISIONS
@pytest.mark.parametrize("function", [EXP2, SIGMOID, SOFTPLUS, SLOPE], ids=range(4))
def test_nan_stays_nan(function: Callable[[np.ndarray], np.ndarray], real: type) -> None:
    assert np.isnan(function(np.array([np.nan, -np.nan], real))).all()
    # Also in the midst of a vector, where it may not touch its neighbours.
    x = np.zeros(37, real)
    x[5] = np.nan
    assert np.isnan(function(x)).nonzero()[0].tolist() == [5]


COUNTS = (1, 2, 4, 16, 64)


def lane_kernel(count: int) -> Callable[..., Any]:
    def run(target, i, source, j):  # noqa: ANN001, ANN202
        copy_lanes(target, i, source, j, count)
        return sum_lanes(source, j, count)

    return compile_kernel(run, __file__)


@PRECISIONS
@pytest.mark.parametrize("count", COUNTS)
def test_lanes_are_copied_and_summed_wherever_they_start(count: int, real: type) -> None:
    kernel = lane_kernel(count)
    source = np.arange(1, 100, dtype=real)
    for i, j in ((0, 0), (3, 1), (7, 99 - count)):
        target = np.zeros(99, real)
        total = kernel(target, i, source, j)
        expected = np.zeros(99, real)
        expected[i : i + count] = source[j : j + count]
        assert (target == expected).all()
        # Small integers: any order of the sum is exact.
        assert total == source[j : j + count].sum()


@PRECISIONS
def test_lanes_are_summed_pair_by_pair(real: type) -> None:
    x = np.zeros(16, real)
    # In order the small one would be lost; the halves are added first, and here they cancel.
    x[[0, 8, 3]] = np.finfo(real).max / 2, -np.finfo(real).max / 2, 1
    assert lane_kernel(16)(np.zeros(16, real), 0, x, 0) == 1


@PRECISIONS
def test_scratch_on_the_stack_overlaps_nothing(real: type) -> None:
    zero = real(0)

    def run(out):  # noqa: ANN001, ANN202
        for _ in range(3):
            a, b = carray(stack(zero, 24), (24,)), carray(stack(zero, 8), (8,))
            c = carray(stack(0, 5), (5,))
            for i in range(24):
                a[i] = 1 + i
            for i in range(8):
                b[i] = 100 + i
            for i in range(5):
                c[i] = 1000 + i
            for i in range(24):
                out[i] += a[i]
            for i in range(8):
                out[24 + i] += b[i]
            for i in range(5):
                out[32 + i] += c[i]

    out = np.zeros(37, real)
    compile_kernel(run, __file__)(out)
    expected = np.concatenate([np.arange(1, 25), np.arange(100, 108), np.arange(1000, 1005)])
    assert (out == 3 * expected).all()


def test_a_count_that_is_no_constant_is_refused() -> None:
    def run(x, count):  # noqa: ANN001, ANN202
        return sum_lanes(x, 0, count)

    with pytest.raises(Exception, match="(?s)sum_lanes"):
        compile_kernel(run)(np.ones(4), 4)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("backwards", [False, True])
def test_transpose_moves_rows_to_columns(real: type, backwards: bool) -> None:
    def move(target, source, first, step):  # noqa: ANN001, ANN202
        transpose(target, first, step, source, 3, 20, 16)

    move = compile_kernel(move)
    source = np.arange(400, dtype=real)
    target = np.zeros(16 * 17 + 5, dtype=real)
    move(target, source, 15 * 17 if backwards else 0, -17 if backwards else 17)
    square = np.stack([source[3 + r * 20 : 19 + r * 20] for r in range(16)])
    columns = square.T[::-1] if backwards else square.T
    rows = np.stack([target[c * 17 : c * 17 + 16] for c in range(16)])
    assert (rows == columns).all()
    assert np.count_nonzero(target) == 256
