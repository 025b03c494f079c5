"""The loops of the depthwise convolution on a CPU.

One task is one sample and LANES neighbouring channels, for all paths. It walks time in tiles whose
rows, and the H = W - 1 rows on either side that their taps reach, are read once for all paths. With
r = t + H - d (H - i) the row of tap i and d = 1 or -1 the direction of a path,

    p[t] = bias + sum_i w[i] x[r];  out = silu(p)
    g = grad silu'(p);  dx[r] += w[i] g[t];  dw[i] = sum_t g[t] x[r];  dbias = sum_t g[t]

Axes: K path, B batch, L time, W tap, D channel, T row of a tile, J lane.
"""

from collections.abc import Callable
from typing import Any

from numba import carray
from numba.extending import register_jitable

from blocks.conv.cpu import LANES
from blocks.cpu.mathematics import copy_lanes, numbers_at, own_function, sigmoid, stack

TILE = 32


def forward_kernel(compile: Callable[..., Any], width: int, silu: bool, real: type) -> Any:
    """The forward loops for a number of taps and a precision, np.float32 or np.float64."""
    W, T, J, H, ZERO = width, TILE, LANES, width - 1, real(0)
    TAPS, ROWS, HALO = W * J, T * J, (T + 2 * H) * J

    @compile
    def forward(
        begin, end, batch, channels, length, directions, lengths,
        x_address, x_at, weight_address, bias_address, out_address,
    ):  # fmt: skip
        x_P, out_P, w_P = stack(ZERO, HALO), stack(ZERO, ROWS), stack(ZERO, TAPS)
        x, x_flat = carray(x_P, (T + 2 * H, J)), carray(x_P, (HALO,))
        out, out_flat = carray(out_P, (T, J)), carray(out_P, (ROWS,))
        w, w_flat = carray(w_P, (W, J)), carray(w_P, (TAPS,))
        bias = carray(stack(ZERO, J), (J,))
        parts = (channels + J - 1) // J
        for task in range(begin, end):
            b, part = divmod(task, parts)
            c, lanes = part * J, min(J, channels - part * J)
            for first in range(0, lengths[b], T):
                steps = min(T, lengths[b] - first)
                read(x_flat, x_address, b * x_at[0] + c, x_at[2], first - H, steps + 2 * H,
                     lengths[b], lanes)  # fmt: skip
                for k in range(len(directions)):
                    d = directions[k]
                    read(w_flat, weight_address, k * W * channels + c, channels, 0, W, W, lanes)
                    read(bias, bias_address, k * channels + c, channels, 0, 1, 1, lanes)
                    for t in range(steps):
                        for j in range(J):
                            p = bias[j]
                            for i in range(W):
                                p += w[i, j] * x[t + H - d * (H - i), j]
                            out[t, j] = p * sigmoid(p) if silu else p
                    write(out_address, ((k * batch + b) * length + first) * channels + c,
                          channels, out_flat, 0, steps, lanes)  # fmt: skip

    return forward


def step_kernel(compile: Callable[..., Any], width: int, real: type) -> Any:
    """The loops of one more input, silu included: `state` (B, D, S) shifts left by one."""
    W, J, ZERO = width, LANES, real(0)

    @compile
    def step(begin, end, channels, stored, state_address, x_address, x_at, weight_address,
             bias_address, out_address):  # fmt: skip
        state = carray(numbers_at(state_address, ZERO), (end * channels * stored,))
        x = carray(numbers_at(x_address, ZERO), (end * x_at + channels,))
        w = carray(numbers_at(weight_address, ZERO), (channels * W,))
        bias = carray(numbers_at(bias_address, ZERO), (channels,))
        out = carray(numbers_at(out_address, ZERO), (end * channels,))
        p = carray(stack(ZERO, J), (J,))
        for b in range(begin, end):
            for first in range(0, channels, J):
                count = min(J, channels - first)
                for j in range(count):
                    c = first + j
                    at, new = (b * channels + c) * stored, x[b * x_at + c]
                    p[j] = bias[c] + w[c * W + W - 1] * new
                    # As many as are kept: the oldest tap may reach one further than that.
                    for i in range(1, W):
                        p[j] += w[c * W + W - 1 - i] * state[at + stored - i]
                    for i in range(stored - 1):
                        state[at + i] = state[at + i + 1]
                    state[at + stored - 1] = new
                for j in range(count):
                    out[b * channels + first + j] = p[j] * sigmoid(p[j])

    return step


def backward_kernel(compile: Callable[..., Any], width: int, silu: bool, real: type) -> Any:
    """The backward loops; p is computed again."""
    W, T, J, H, ZERO, ONE = width, TILE, LANES, width - 1, real(0), real(1)
    TAPS, ROWS, HALO = W * J, T * J, (T + 2 * H) * J

    @compile
    def backward(
        begin, end, batch, channels, length, directions, lengths,
        x_address, x_at, weight_address, bias_address, grad_address, grad_at,
        dx_address, dweight_address, dbias_address,
    ):  # fmt: skip
        x_P, dx_P, g_P = stack(ZERO, HALO), stack(ZERO, HALO), stack(ZERO, ROWS)
        x, x_flat = carray(x_P, (T + 2 * H, J)), carray(x_P, (HALO,))
        dx, dx_flat = carray(dx_P, (T + 2 * H, J)), carray(dx_P, (HALO,))
        g, g_flat = carray(g_P, (T, J)), carray(g_P, (ROWS,))
        w_P, dw_P = stack(ZERO, TAPS), stack(ZERO, TAPS)
        w, w_flat = carray(w_P, (W, J)), carray(w_P, (TAPS,))
        dw, dw_flat = carray(dw_P, (W, J)), carray(dw_P, (TAPS,))
        bias, db = carray(stack(ZERO, J), (J,)), carray(stack(ZERO, J), (J,))
        parts = (channels + J - 1) // J
        for task in range(begin, end):
            b, part = divmod(task, parts)
            c, lanes = part * J, min(J, channels - part * J)
            for first in range(0, lengths[b], T):
                steps = min(T, lengths[b] - first)
                read(x_flat, x_address, b * x_at[0] + c, x_at[2], first - H, steps + 2 * H,
                     lengths[b], lanes)  # fmt: skip
                # Neighbouring tiles share the rows of their halos.
                read(dx_flat, dx_address, b * length * channels + c, channels, first - H,
                     steps + 2 * H, lengths[b], lanes)  # fmt: skip
                for k in range(len(directions)):
                    d, of_sample = directions[k], (b * len(directions) + k) * channels
                    read(w_flat, weight_address, k * W * channels + c, channels, 0, W, W, lanes)
                    read(bias, bias_address, k * channels + c, channels, 0, 1, 1, lanes)
                    read(dw_flat, dweight_address, of_sample * W + c, channels, 0, W, W, lanes)
                    read(db, dbias_address, of_sample + c, channels, 0, 1, 1, lanes)
                    read(g_flat, grad_address, b * grad_at[0] + k * grad_at[1] + c, grad_at[3],
                         first, steps, lengths[b], lanes)  # fmt: skip
                    if silu:
                        for t in range(steps):
                            for j in range(J):
                                p = bias[j]
                                for i in range(W):
                                    p += w[i, j] * x[t + H - d * (H - i), j]
                                s = sigmoid(p)
                                g[t, j] *= s * (ONE + p * (ONE - s))
                    for t in range(steps):
                        for j in range(J):
                            db[j] += g[t, j]
                            for i in range(W):
                                dx[t + H - d * (H - i), j] += w[i, j] * g[t, j]
                                dw[i, j] += x[t + H - d * (H - i), j] * g[t, j]
                    write(dweight_address, of_sample * W + c, channels, dw_flat, 0, W, lanes)
                    write(dbias_address, of_sample + c, channels, db, 0, 1, lanes)
                start, stop = max(first - H, 0), min(first + steps + H, lengths[b])
                write(dx_address, (b * length + start) * channels + c, channels, dx_flat,
                      start - (first - H), stop - start, lanes)  # fmt: skip

    return backward


@register_jitable
def read(tile, address, at, stride, first, count, length, lanes):
    """Rows first to first + count of a stream, zeros outside 0..length and beyond the lanes."""
    own_function()
    memory = carray(numbers_at(address, tile[0]), (1,))
    for r in range(count):
        if not 0 <= first + r < length or lanes < LANES:
            for j in range(LANES):
                tile[r * LANES + j] = 0
        if 0 <= first + r < length:
            source = at + (first + r) * stride
            if lanes == LANES:
                copy_lanes(tile, r * LANES, memory, source, LANES)
            else:
                for j in range(lanes):
                    tile[r * LANES + j] = memory[source + j]


@register_jitable
def write(address, at, stride, tile, first, count, lanes):
    """Writes the rows first to first + count of a tile, one stride apart."""
    own_function()
    memory = carray(numbers_at(address, tile[0]), (1,))
    for r in range(count):
        if lanes == LANES:
            copy_lanes(memory, at + r * stride, tile, (first + r) * LANES, LANES)
        else:
            for j in range(lanes):
                memory[at + r * stride + j] = tile[(first + r) * LANES + j]
