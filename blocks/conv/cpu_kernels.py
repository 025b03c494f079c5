"""The loops of the depthwise convolution on a CPU.

One task is one sample and LANES neighbouring channels, for all paths and times; lanes are the
innermost loop. Weights, sums and the row in work lie on the stack, so that the compiler knows them
apart from the streams. Axes: K path, B batch, L time, W tap, D channel.
"""

from collections.abc import Callable
from typing import Any

from numba import carray

from blocks.conv.cpu import LANES
from blocks.cpu.mathematics import numbers_at, sigmoid, stack


def forward_kernel(compile: Callable[..., Any], width: int, real: type) -> Any:
    """The forward loops for a number of taps and a precision, np.float32 or np.float64."""
    W, J, TAPS, ZERO = width, LANES, width * LANES, real(0)

    @compile
    def forward(
        begin, end, batch, channels, length, directions, lengths, silu,
        x_address, x_at, weight_address, bias_address, out_address,
    ):  # fmt: skip
        x = carray(numbers_at(x_address, ZERO), (1,))
        weight = carray(numbers_at(weight_address, ZERO), (1,))
        bias = carray(numbers_at(bias_address, ZERO), (1,))
        out = carray(numbers_at(out_address, ZERO), (1,))
        w = carray(stack(ZERO, TAPS), (W, J))
        p = carray(stack(ZERO, J), (J,))
        parts = (channels + J - 1) // J
        for task in range(begin, end):
            b, part = divmod(task, parts)
            c = part * J
            lanes = min(J, channels - c)
            for k in range(len(directions)):
                for i in range(W):
                    for j in range(lanes):
                        w[i, j] = weight[(k * W + i) * channels + c + j]
                for t in range(lengths[b]):
                    for j in range(lanes):
                        p[j] = bias[k * channels + c + j]
                    for i in range(W):
                        source = t - (W - 1 - i) * directions[k]
                        if 0 <= source < lengths[b]:
                            at = b * x_at[0] + source * x_at[2] + c
                            for j in range(lanes):
                                p[j] += w[i, j] * x[at + j]
                    if silu:
                        for j in range(lanes):
                            p[j] *= sigmoid(p[j])
                    at = ((k * batch + b) * length + t) * channels + c
                    for j in range(lanes):
                        out[at + j] = p[j]

    return forward


def backward_kernel(compile: Callable[..., Any], width: int, real: type) -> Any:
    """The backward loops; the value before silu is computed again."""
    W, J, TAPS, ZERO, ONE = width, LANES, width * LANES, real(0), real(1)

    @compile
    def backward(
        begin, end, batch, channels, length, directions, lengths, silu,
        x_address, x_at, weight_address, bias_address, grad_address, grad_at,
        dx_address, dweight_address, dbias_address,
    ):  # fmt: skip
        x = carray(numbers_at(x_address, ZERO), (1,))
        weight = carray(numbers_at(weight_address, ZERO), (1,))
        bias = carray(numbers_at(bias_address, ZERO), (1,))
        grad = carray(numbers_at(grad_address, ZERO), (1,))
        dx = carray(numbers_at(dx_address, ZERO), (1,))
        dweight = carray(numbers_at(dweight_address, ZERO), (1,))
        dbias = carray(numbers_at(dbias_address, ZERO), (1,))
        w, w_sum = carray(stack(ZERO, TAPS), (W, J)), carray(stack(ZERO, TAPS), (W, J))
        p, g = carray(stack(ZERO, J), (J,)), carray(stack(ZERO, J), (J,))
        g_sum = carray(stack(ZERO, J), (J,))
        parts = (channels + J - 1) // J
        for task in range(begin, end):
            b, part = divmod(task, parts)
            c = part * J
            lanes = min(J, channels - c)
            for k in range(len(directions)):
                for j in range(lanes):
                    g_sum[j] = ZERO
                for i in range(W):
                    for j in range(lanes):
                        w[i, j] = weight[(k * W + i) * channels + c + j]
                        w_sum[i, j] = ZERO
                for t in range(lengths[b]):
                    for j in range(lanes):
                        p[j] = bias[k * channels + c + j]
                    at = b * grad_at[0] + k * grad_at[1] + t * grad_at[3] + c
                    for j in range(lanes):
                        g[j] = grad[at + j]
                    if silu:
                        for i in range(W):
                            source = t - (W - 1 - i) * directions[k]
                            if 0 <= source < lengths[b]:
                                at = b * x_at[0] + source * x_at[2] + c
                                for j in range(lanes):
                                    p[j] += w[i, j] * x[at + j]
                        for j in range(lanes):
                            s = sigmoid(p[j])
                            g[j] *= s * (ONE + p[j] * (ONE - s))
                    for j in range(lanes):
                        g_sum[j] += g[j]
                    for i in range(W):
                        source = t - (W - 1 - i) * directions[k]
                        if 0 <= source < lengths[b]:
                            at = b * x_at[0] + source * x_at[2] + c
                            for j in range(lanes):
                                w_sum[i, j] += g[j] * x[at + j]
                            at = (b * length + source) * channels + c
                            for j in range(lanes):
                                dx[at + j] += w[i, j] * g[j]
                at = (b * len(directions) + k) * channels + c
                for j in range(lanes):
                    dbias[at + j] = g_sum[j]
                for i in range(W):
                    at = ((b * len(directions) + k) * W + i) * channels + c
                    for j in range(lanes):
                        dweight[at + j] = w_sum[i, j]

    return backward
