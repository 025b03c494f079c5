"""The loops of the scan on a CPU: forward, and backward with everything recomputed tile by tile.

    s = softplus(delta + bias);  h = 2^(s A log2 e) h + s B u;  y = C . h + D u

One task is one sample and a few blocks of LANES channels. It walks time in tiles and, inside a
tile, block after block, so that a row of memory is read while it is near. Lanes are the innermost
loop of constant length, states the next: B and C are then plain numbers, and nothing is summed
across lanes until a tile is done. A task does all paths, one after the other, and gates with the
last, so that what they share is still near; nothing is flipped, positions are computed.

Streams come as addresses with strides (batch, path, channel, position): any layout is read as it
is; what is absent has address 0. Names: `x_T` is the tile of a stream, flat for loops over all of
it; `x_TW` is the same memory as (T, W), for loops that need the step. A loop over both axes of a
tile with little in it would be unrolled and turned into gathers; hence the flat ones, and
`copy_lanes`.

Axes: K path, B batch, G group, P channel in its group (D = G P), N state, L position, T step of a
tile, W lane.
"""

from collections.abc import Callable
from typing import Any

from numba import carray

from blocks.cpu.mathematics import LOG2_E, exp2, sigmoid, softplus, softplus_slope, stack
from blocks.scan.cpu import LANES, MAX_BLOCKS, tile_steps
from blocks.scan.cpu_tiles import (
    channel,
    fetch,
    fold,
    load,
    load_factor,
    positions,
    put,
    spread,
    store,
    store_sums,
    whereabouts,
)


def forward_kernel(compile: Callable[..., Any], states: int, real: type) -> Any:
    """The forward loops for a number of states and a precision.

    Args:
        compile: Decorator that compiles them.
        states: N.
        real: np.float32 or np.float64.
    """
    N, T, W, NW = states, tile_steps(states), LANES, states * LANES
    STATE, FACTOR, STREAM = MAX_BLOCKS * N * W, T * N, T * W
    BLOCKS, ZERO = MAX_BLOCKS, real(0)

    @compile
    def forward(
        begin, end, sizes, paths, width, lengths, with_softplus,
        u, u_at, delta, delta_at, rates, B, B_at, C, C_at, D, z, z_at, bias,
        out, out_at, last, kept,
    ):  # fmt: skip
        tiles = sizes[4]
        h_P, rate_P = stack(ZERO, STATE), stack(ZERO, STATE)
        h, h_flat = carray(h_P, (BLOCKS, N, W)), carray(h_P, (STATE,))
        rate, rate_flat = carray(rate_P, (BLOCKS, N, W)), carray(rate_P, (STATE,))
        B_T, C_T = carray(stack(ZERO, FACTOR), (T, N)), carray(stack(ZERO, FACTOR), (T, N))
        u_P, s_P, y_P = stack(ZERO, STREAM), stack(ZERO, STREAM), stack(ZERO, STREAM)
        u_T, s_T, y_T = carray(u_P, (STREAM,)), carray(s_P, (STREAM,)), carray(y_P, (STREAM,))
        u_TW, s_TW, y_TW = carray(u_P, (T, W)), carray(s_P, (T, W)), carray(y_P, (T, W))
        w_T = carray(stack(ZERO, STREAM), (STREAM,))
        rows = carray(stack(0, T), (T,))
        for task in range(begin, end):
            b, g, part, first, blocks, place, places = whereabouts(task, sizes)
            steps_b = lengths[b]
            for k in range(sizes[0]):
                at_k, at_bk = k * places + place, (b * sizes[0] + k) * places + place
                for block in range(blocks):
                    fetch(rate_flat, block * NW, rates, (at_k + block) * NW, NW)
                for i in range(blocks * NW):
                    h_flat[i] = ZERO
                for tile in range((steps_b + T - 1) // T):
                    steps = min(T, steps_b - tile * T)
                    positions(rows, paths[k], tile * T, steps, steps_b, width)
                    load_factor(B_T, B, B_at, b, k, g, rows, steps)
                    load_factor(C_T, C, C_at, b, k, g, rows, steps)
                    at_kept = ((k * len(lengths) + b) * tiles + tile) * places + place
                    for block in range(blocks):
                        c, lanes = channel(g, first, block, sizes)
                        load(u_T, u, u_at, b, k, c, rows, steps, lanes)
                        load(s_T, delta, delta_at, b, k, c, rows, steps, lanes)
                        put(kept, (at_kept + block) * NW, h_flat, block * NW, NW)
                        spread(w_T, bias, at_k + block, steps)
                        for i in range(steps * W):
                            s_T[i] += w_T[i]
                        if with_softplus:
                            for i in range(steps * W):
                                s_T[i] = softplus(s_T[i])
                        spread(w_T, D, at_k + block, steps)
                        for i in range(steps * W):
                            y_T[i] = w_T[i] * u_T[i]
                            u_T[i] *= s_T[i]
                        for t in range(steps):
                            for n in range(N):
                                B_t, C_t = B_T[t, n], C_T[t, n]
                                for j in range(W):
                                    a = exp2(s_TW[t, j] * rate[block, n, j])
                                    h_t = a * h[block, n, j] + u_TW[t, j] * B_t
                                    h[block, n, j] = h_t
                                    y_TW[t, j] += h_t * C_t
                        if k > 0:
                            load(w_T, out, out_at, b, 0, c, rows, steps, lanes)
                            for i in range(steps * W):
                                y_T[i] += w_T[i]
                        if z != 0 and k == sizes[0] - 1:
                            load(w_T, z, z_at, b, 0, c, rows, steps, lanes)
                            for i in range(steps * W):
                                y_T[i] *= w_T[i] * sigmoid(w_T[i])
                        store(out, out_at, y_T, b, 0, c, rows, steps, lanes)
                for block in range(blocks):
                    put(last, (at_bk + block) * NW, h_flat, block * NW, NW)

    return forward


def backward_kernel(compile: Callable[..., Any], states: int, real: type) -> Any:
    """The backward loops; arguments as for `forward_kernel`.

    With q = dL/dh, running against the path:
        q = C g + a' q',  dC = g h,  dB = q s u,  du = s (q . B) + D g
        r = q a h_before,  ds = u (q . B) + A . r,  dA = s r
    """
    N, T, W, NW = states, tile_steps(states), LANES, states * LANES
    STATE, FACTOR, STREAM = MAX_BLOCKS * N * W, T * N, T * W
    HISTORY, FACTOR_LANES, STREAMS = (T + 1) * N * W, T * N * W, MAX_BLOCKS * T * W
    BLOCKS, ZERO, ONE, FROM_BASE_2 = MAX_BLOCKS, real(0), real(1), real(1 / LOG2_E)

    @compile
    def backward(
        begin, end, sizes, paths, width, lengths, with_softplus,
        u, u_at, delta, delta_at, rates, B, B_at, C, C_at, D, z, z_at, bias,
        grad, grad_at, grad_last, kept,
        du, du_at, ddelta, ddelta_at, dA, dB, dC, dD, dz, dz_at, dbias,
    ):  # fmt: skip
        tiles = sizes[4]
        carry_P, rate_P, A_P = stack(ZERO, STATE), stack(ZERO, STATE), stack(ZERO, STATE)
        carry, carry_flat = carray(carry_P, (BLOCKS, N, W)), carray(carry_P, (STATE,))
        rate, rate_flat = carray(rate_P, (BLOCKS, N, W)), carray(rate_P, (STATE,))
        A_sum, A_flat = carray(A_P, (BLOCKS, N, W)), carray(A_P, (STATE,))
        h_P, B_P, C_P = stack(ZERO, HISTORY), stack(ZERO, FACTOR_LANES), stack(ZERO, FACTOR_LANES)
        h, h_flat = carray(h_P, (T + 1, N, W)), carray(h_P, (HISTORY,))
        B_sum, B_flat = carray(B_P, (T, N, W)), carray(B_P, (FACTOR_LANES,))
        C_sum, C_flat = carray(C_P, (T, N, W)), carray(C_P, (FACTOR_LANES,))
        a = carray(stack(ZERO, FACTOR_LANES), (T, N, W))
        B_T, C_T = carray(stack(ZERO, FACTOR), (T, N)), carray(stack(ZERO, FACTOR), (T, N))
        s_P, g_P, x_P = stack(ZERO, STREAM), stack(ZERO, STREAM), stack(ZERO, STREAM)
        y_P, ds_P, qB_P = stack(ZERO, STREAM), stack(ZERO, STREAM), stack(ZERO, STREAM)
        s_T, s_TW = carray(s_P, (STREAM,)), carray(s_P, (T, W))
        g_T, g_TW = carray(g_P, (STREAM,)), carray(g_P, (T, W))
        x_T, x_TW = carray(x_P, (STREAM,)), carray(x_P, (T, W))
        y_T, y_TW = carray(y_P, (STREAM,)), carray(y_P, (T, W))
        ds_T, ds_TW = carray(ds_P, (STREAM,)), carray(ds_P, (T, W))
        qB_T, qB_TW = carray(qB_P, (STREAM,)), carray(qB_P, (T, W))
        u_T = carray(stack(ZERO, STREAM), (STREAM,))
        z_T = carray(stack(ZERO, STREAM), (STREAM,))
        grad_T = carray(stack(ZERO, STREAM), (STREAM,))
        skip_T = carray(stack(ZERO, STREAM), (STREAM,))
        slope_T = carray(stack(ZERO, STREAM), (STREAM,))
        bias_sum = carray(stack(ZERO, STREAMS), (STREAMS,))
        D_sum = carray(stack(ZERO, STREAMS), (STREAMS,))
        rows = carray(stack(0, T), (T,))
        for task in range(begin, end):
            b, g, part, first, blocks, place, places = whereabouts(task, sizes)
            steps_b = lengths[b]
            for k in range(sizes[0]):
                at_k, at_bk = k * places + place, (b * sizes[0] + k) * places + place
                for block in range(blocks):
                    fetch(rate_flat, block * NW, rates, (at_k + block) * NW, NW)
                for i in range(blocks * NW):
                    A_flat[i] = ZERO
                    carry_flat[i] = ZERO
                if grad_last != 0:
                    for block in range(blocks):
                        fetch(carry_flat, block * NW, grad_last, (at_bk + block) * NW, NW)
                for i in range(blocks * STREAM):
                    bias_sum[i] = ZERO
                    D_sum[i] = ZERO
                for tile in range((steps_b + T - 1) // T - 1, -1, -1):
                    steps = min(T, steps_b - tile * T)
                    positions(rows, paths[k], tile * T, steps, steps_b, width)
                    load_factor(B_T, B, B_at, b, k, g, rows, steps)
                    load_factor(C_T, C, C_at, b, k, g, rows, steps)
                    at_kept = ((k * len(lengths) + b) * tiles + tile) * places + place
                    for i in range(steps * NW):
                        B_flat[i] = ZERO
                        C_flat[i] = ZERO
                    for block in range(blocks):
                        c, lanes = channel(g, first, block, sizes)
                        load(u_T, u, u_at, b, k, c, rows, steps, lanes)
                        load(s_T, delta, delta_at, b, k, c, rows, steps, lanes)
                        load(grad_T, grad, grad_at, b, 0, c, rows, steps, lanes)
                        fetch(h_flat, 0, kept, (at_kept + block) * NW, NW)
                        spread(x_T, bias, at_k + block, steps)
                        spread(skip_T, D, at_k + block, steps)
                        for i in range(steps * W):
                            s_T[i] += x_T[i]
                            slope_T[i] = ONE
                            g_T[i] = grad_T[i]
                        if with_softplus:
                            for i in range(steps * W):
                                slope_T[i] = softplus_slope(s_T[i])
                                s_T[i] = softplus(s_T[i])
                        if z != 0:
                            load(z_T, z, z_at, b, 0, c, rows, steps, lanes)
                            for i in range(steps * W):
                                g_T[i] *= z_T[i] * sigmoid(z_T[i])
                        for i in range(steps * W):
                            x_T[i] = u_T[i] * s_T[i]
                            y_T[i] = skip_T[i] * u_T[i]
                            skip_T[i] *= g_T[i]
                            qB_T[i] = ZERO
                            ds_T[i] = ZERO
                        for t in range(steps):
                            for n in range(N):
                                B_t, C_t = B_T[t, n], C_T[t, n]
                                for j in range(W):
                                    a_t = exp2(s_TW[t, j] * rate[block, n, j])
                                    h_t = a_t * h[t, n, j] + x_TW[t, j] * B_t
                                    a[t, n, j] = a_t
                                    h[t + 1, n, j] = h_t
                                    y_TW[t, j] += h_t * C_t
                        for t in range(steps - 1, -1, -1):
                            for n in range(N):
                                B_t, C_t = B_T[t, n], C_T[t, n]
                                for j in range(W):
                                    q = carry[block, n, j] + C_t * g_TW[t, j]
                                    aq = a[t, n, j] * q
                                    r = aq * h[t, n, j]
                                    carry[block, n, j] = aq
                                    C_sum[t, n, j] += g_TW[t, j] * h[t + 1, n, j]
                                    B_sum[t, n, j] += q * x_TW[t, j]
                                    A_sum[block, n, j] += s_TW[t, j] * r
                                    qB_TW[t, j] += q * B_t
                                    ds_TW[t, j] += rate[block, n, j] * r
                        for i in range(steps * W):
                            ds_T[i] = (ds_T[i] * FROM_BASE_2 + u_T[i] * qB_T[i]) * slope_T[i]
                            qB_T[i] = s_T[i] * qB_T[i] + skip_T[i]
                            bias_sum[block * STREAM + i] += ds_T[i]
                            D_sum[block * STREAM + i] += u_T[i] * g_T[i]
                        store(ddelta, ddelta_at, ds_T, b, k, c, rows, steps, lanes)
                        if k > 0 and du_at[1] == 0:
                            load(x_T, du, du_at, b, k, c, rows, steps, lanes)
                            for i in range(steps * W):
                                qB_T[i] += x_T[i]
                        store(du, du_at, qB_T, b, k, c, rows, steps, lanes)
                        if z != 0:
                            if k > 0:
                                load(x_T, dz, dz_at, b, 0, c, rows, steps, lanes)
                                for i in range(steps * W):
                                    y_T[i] += x_T[i]
                            if k == sizes[0] - 1:
                                for i in range(steps * W):
                                    gate = sigmoid(z_T[i])
                                    y_T[i] *= grad_T[i] * gate * (ONE + z_T[i] * (ONE - gate))
                            store(dz, dz_at, y_T, b, 0, c, rows, steps, lanes)
                    at_sum = ((part * len(lengths) + b) * sizes[0] + k) * sizes[1] + g
                    store_sums(dB, at_sum * sizes[5], B_flat, rows, steps, N)
                    store_sums(dC, at_sum * sizes[5], C_flat, rows, steps, N)
                for block in range(blocks):
                    put(dA, (at_bk + block) * NW, A_flat, block * NW, NW)
                    fold(dD, at_bk + block, D_sum, block, T)
                    fold(dbias, at_bk + block, bias_sum, block, T)

    return backward
