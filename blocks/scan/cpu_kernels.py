"""The loops of the scan on a CPU: forward, and backward with everything recomputed tile by tile.

    s = softplus(delta + bias);  h = 2^(s A log2 e) h + s B u;  y = C . h + D u

One task is one sample and a few blocks of LANES channels. It walks time in tiles and, inside a
tile, block after block, so that a row of memory is read while it is near. Lanes are the innermost
loop of constant length, states the next: B and C are then plain numbers, and nothing is summed
across lanes until a tile is done. A task does all paths, one after the other, and gates with the
last, so that what they share is still near; nothing is flipped, positions are computed.

Streams come as flat arrays with strides (batch, path, channel, position): any layout is read as it
is. Names: `x_T` is the tile of a stream, flat for loops over all of it; `x_TW` is the same memory
as (T, W), for loops that need the step. A loop over both axes of a tile with little in it would be
unrolled and turned into gathers; hence the flat ones, and `copy_lanes`.

Axes: K path, B batch, G group, P channel in its group (D = G P), N state, L position, T step of a
tile, W lane.
"""

from collections.abc import Callable
from typing import Any

from numba import carray
from numba.extending import register_jitable

from blocks.cpu.mathematics import (
    LOG2_E,
    copy_lanes,
    exp2,
    sigmoid,
    softplus,
    softplus_slope,
    stack,
    sum_lanes,
)
from blocks.scan.cpu import LANES, MAX_BLOCKS, tile_steps

PATH_LETTERS = "><v^"


def forward_kernel(compile: Callable[..., Any], states: int, real: type) -> Any:
    """The forward loops for a number of states and a precision.

    Args:
        compile: Decorator that compiles them.
        states: N.
        real: np.float32 or np.float64.
    """
    N, T, W = states, tile_steps(states), LANES
    STATE, FACTOR, STREAM = MAX_BLOCKS * N * W, T * N, T * W
    BLOCKS, BLOCK_LANES = MAX_BLOCKS, MAX_BLOCKS * W
    ZERO, TO_BASE_2 = real(0), real(LOG2_E)

    @compile
    def forward(
        begin, end, sizes, paths, width, lengths, with_softplus,
        u, u_at, delta, delta_at, A, B, B_at, C, C_at, D, z, z_at, bias,
        out, out_at, last, kept,
    ):  # fmt: skip
        paths_K, groups, channels, span = sizes
        h = carray(stack(ZERO, STATE), (BLOCKS, N, W))
        rate = carray(stack(ZERO, STATE), (BLOCKS, N, W))
        B_T, C_T = carray(stack(ZERO, FACTOR), (T, N)), carray(stack(ZERO, FACTOR), (T, N))
        u_P, s_P, y_P = stack(ZERO, STREAM), stack(ZERO, STREAM), stack(ZERO, STREAM)
        u_T, s_T, y_T = carray(u_P, (STREAM,)), carray(s_P, (STREAM,)), carray(y_P, (STREAM,))
        u_TW, s_TW, y_TW = carray(u_P, (T, W)), carray(s_P, (T, W)), carray(y_P, (T, W))
        w_T = carray(stack(ZERO, STREAM), (STREAM,))
        bias_W = carray(stack(ZERO, BLOCK_LANES), (BLOCK_LANES,))
        D_W = carray(stack(ZERO, BLOCK_LANES), (BLOCK_LANES,))
        rows = carray(stack(0, T), (T,))
        per_group, blocks_all = (channels + span - 1) // span, (channels + W - 1) // W
        for task in range(begin, end):
            b, rest = divmod(task, groups * per_group)
            g, part = divmod(rest, per_group)
            first, stop = part * span, min(channels, part * span + span)
            blocks = (stop - first + W - 1) // W
            for k in range(paths_K):
                for block in range(blocks):
                    c = g * channels + first + block * W
                    lanes = min(W, stop - first - block * W)
                    for n in range(N):
                        for j in range(W):
                            h[block, n, j] = ZERO
                            rate[block, n, j] = A[k, c + j, n] * TO_BASE_2 if j < lanes else ZERO
                    for j in range(W):
                        i = block * W + j
                        bias_W[i] = bias[k, c + j] if bias.size > 0 and j < lanes else ZERO
                        D_W[i] = D[k, c + j] if D.size > 0 and j < lanes else ZERO
                for tile in range((lengths[b] + T - 1) // T):
                    steps = min(T, lengths[b] - tile * T)
                    positions(rows, paths[k], tile * T, steps, lengths[b], width)
                    load_factor(B_T, B, B_at, b, k, g, rows, steps)
                    load_factor(C_T, C, C_at, b, k, g, rows, steps)
                    for block in range(blocks):
                        c = g * channels + first + block * W
                        lanes = min(W, stop - first - block * W)
                        load(u_T, u, u_at, b, k, c, rows, steps, lanes)
                        load(s_T, delta, delta_at, b, k, c, rows, steps, lanes)
                        place = g * blocks_all + first // W + block
                        for n in range(N):
                            for j in range(W):
                                kept[k, b, tile, place, n, j] = h[block, n, j]
                        spread(w_T, bias_W, block, steps)
                        for i in range(steps * W):
                            s_T[i] += w_T[i]
                        spread(w_T, D_W, block, steps)
                        for i in range(steps * W):
                            y_T[i] = w_T[i] * u_T[i]
                        if with_softplus:
                            for i in range(steps * W):
                                s_T[i] = softplus(s_T[i])
                        for i in range(steps * W):
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
                        if z.size > 0 and k == paths_K - 1:
                            load(w_T, z, z_at, b, 0, c, rows, steps, lanes)
                            for i in range(steps * W):
                                y_T[i] *= w_T[i] * sigmoid(w_T[i])
                        store(out, out_at, y_T, b, 0, c, rows, steps, lanes)
                for block in range(blocks):
                    c = g * channels + first + block * W
                    for j in range(min(W, stop - first - block * W)):
                        for n in range(N):
                            last[b, k, c + j, n] = h[block, n, j]

    return forward


def backward_kernel(compile: Callable[..., Any], states: int, real: type) -> Any:
    """The backward loops; arguments as for `forward_kernel`.

    With q = dL/dh, running against the path:
        q = C g + a' q',  dC = g h,  dB = q s u,  du = s (q . B) + D g
        r = q a h_before,  ds = u (q . B) + A . r,  dA = s r
    """
    N, T, W = states, tile_steps(states), LANES
    STATE, FACTOR, STREAM = MAX_BLOCKS * N * W, T * N, T * W
    HISTORY, FACTOR_LANES = (T + 1) * N * W, T * N * W
    BLOCK_LANES, BLOCK_STREAM = MAX_BLOCKS * W, MAX_BLOCKS * T * W
    BLOCKS = MAX_BLOCKS
    ZERO, ONE = real(0), real(1)
    TO_BASE_2, FROM_BASE_2 = real(LOG2_E), real(1 / LOG2_E)

    @compile
    def backward(
        begin, end, sizes, paths, width, lengths, with_softplus,
        u, u_at, delta, delta_at, A, B, B_at, C, C_at, D, z, z_at, bias,
        grad, grad_at, grad_last, kept,
        du, du_at, ddelta, ddelta_at, dA, dB, dC, dD, dz, dz_at, dbias,
    ):  # fmt: skip
        paths_K, groups, channels, span = sizes
        carry = carray(stack(ZERO, STATE), (BLOCKS, N, W))
        rate = carray(stack(ZERO, STATE), (BLOCKS, N, W))
        A_sum = carray(stack(ZERO, STATE), (BLOCKS, N, W))
        h = carray(stack(ZERO, HISTORY), (T + 1, N, W))
        a = carray(stack(ZERO, FACTOR_LANES), (T, N, W))
        B_P, C_P = stack(ZERO, FACTOR_LANES), stack(ZERO, FACTOR_LANES)
        B_sum, B_flat = carray(B_P, (T, N, W)), carray(B_P, (FACTOR_LANES,))
        C_sum, C_flat = carray(C_P, (T, N, W)), carray(C_P, (FACTOR_LANES,))
        B_T, C_T = carray(stack(ZERO, FACTOR), (T, N)), carray(stack(ZERO, FACTOR), (T, N))
        s_P, g_P, x_P = stack(ZERO, STREAM), stack(ZERO, STREAM), stack(ZERO, STREAM)
        y_P, ds_P, uB_P = stack(ZERO, STREAM), stack(ZERO, STREAM), stack(ZERO, STREAM)
        u_T = carray(stack(ZERO, STREAM), (STREAM,))
        s_T, s_TW = carray(s_P, (STREAM,)), carray(s_P, (T, W))
        g_T, g_TW = carray(g_P, (STREAM,)), carray(g_P, (T, W))
        x_T, x_TW = carray(x_P, (STREAM,)), carray(x_P, (T, W))
        y_T, y_TW = carray(y_P, (STREAM,)), carray(y_P, (T, W))
        ds_T, ds_TW = carray(ds_P, (STREAM,)), carray(ds_P, (T, W))
        uB_T, uB_TW = carray(uB_P, (STREAM,)), carray(uB_P, (T, W))
        go_T = carray(stack(ZERO, STREAM), (STREAM,))
        gD_T = carray(stack(ZERO, STREAM), (STREAM,))
        z_T = carray(stack(ZERO, STREAM), (STREAM,))
        slope_T = carray(stack(ZERO, STREAM), (STREAM,))
        bias_W = carray(stack(ZERO, BLOCK_LANES), (BLOCK_LANES,))
        D_W = carray(stack(ZERO, BLOCK_LANES), (BLOCK_LANES,))
        bias_sum = carray(stack(ZERO, BLOCK_STREAM), (BLOCKS, STREAM))
        D_sum = carray(stack(ZERO, BLOCK_STREAM), (BLOCKS, STREAM))
        rows = carray(stack(0, T), (T,))
        per_group, blocks_all = (channels + span - 1) // span, (channels + W - 1) // W
        shared = u_at[1] == 0
        for task in range(begin, end):
            b, rest = divmod(task, groups * per_group)
            g, part = divmod(rest, per_group)
            first, stop = part * span, min(channels, part * span + span)
            blocks = (stop - first + W - 1) // W
            for k in range(paths_K):
                for block in range(blocks):
                    c = g * channels + first + block * W
                    lanes = min(W, stop - first - block * W)
                    for n in range(N):
                        for j in range(W):
                            carry[block, n, j] = ZERO
                            A_sum[block, n, j] = ZERO
                            rate[block, n, j] = A[k, c + j, n] * TO_BASE_2 if j < lanes else ZERO
                    if grad_last.size > 0:
                        for n in range(N):
                            for j in range(lanes):
                                carry[block, n, j] = grad_last[b, k, c + j, n]
                    for j in range(W):
                        i = block * W + j
                        bias_W[i] = bias[k, c + j] if bias.size > 0 and j < lanes else ZERO
                        D_W[i] = D[k, c + j] if D.size > 0 and j < lanes else ZERO
                    for i in range(STREAM):
                        bias_sum[block, i] = ZERO
                        D_sum[block, i] = ZERO
                for tile in range((lengths[b] + T - 1) // T - 1, -1, -1):
                    steps = min(T, lengths[b] - tile * T)
                    positions(rows, paths[k], tile * T, steps, lengths[b], width)
                    load_factor(B_T, B, B_at, b, k, g, rows, steps)
                    load_factor(C_T, C, C_at, b, k, g, rows, steps)
                    for i in range(steps * N * W):
                        B_flat[i] = ZERO
                        C_flat[i] = ZERO
                    for block in range(blocks):
                        c = g * channels + first + block * W
                        lanes = min(W, stop - first - block * W)
                        load(u_T, u, u_at, b, k, c, rows, steps, lanes)
                        load(s_T, delta, delta_at, b, k, c, rows, steps, lanes)
                        load(go_T, grad, grad_at, b, 0, c, rows, steps, lanes)
                        if z.size > 0:
                            load(z_T, z, z_at, b, 0, c, rows, steps, lanes)
                        place = g * blocks_all + first // W + block
                        for n in range(N):
                            for j in range(W):
                                h[0, n, j] = kept[k, b, tile, place, n, j]
                        spread(x_T, bias_W, block, steps)
                        spread(gD_T, D_W, block, steps)
                        for i in range(steps * W):
                            s_T[i] += x_T[i]
                            y_T[i] = gD_T[i] * u_T[i]
                            gD_T[i] *= go_T[i]
                        for i in range(steps * W):
                            slope_T[i] = ONE
                            g_T[i] = go_T[i]
                        if with_softplus:
                            for i in range(steps * W):
                                slope_T[i] = softplus_slope(s_T[i])
                                s_T[i] = softplus(s_T[i])
                        if z.size > 0:
                            for i in range(steps * W):
                                gate = z_T[i] * sigmoid(z_T[i])
                                g_T[i] *= gate
                                gD_T[i] *= gate
                        for i in range(steps * W):
                            x_T[i] = u_T[i] * s_T[i]
                            uB_T[i] = ZERO
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
                                    uB_TW[t, j] += q * B_t
                                    ds_TW[t, j] += rate[block, n, j] * r
                        for i in range(steps * W):
                            ds_T[i] = (ds_T[i] * FROM_BASE_2 + u_T[i] * uB_T[i]) * slope_T[i]
                            uB_T[i] = s_T[i] * uB_T[i] + gD_T[i]
                            u_T[i] *= g_T[i]
                            bias_sum[block, i] += ds_T[i]
                            D_sum[block, i] += u_T[i]
                        store(ddelta, ddelta_at, ds_T, b, k, c, rows, steps, lanes)
                        if shared and k > 0:
                            load(x_T, du, du_at, b, k, c, rows, steps, lanes)
                            for i in range(steps * W):
                                uB_T[i] += x_T[i]
                        store(du, du_at, uB_T, b, k, c, rows, steps, lanes)
                        if z.size > 0:
                            if k > 0:
                                load(x_T, dz, dz_at, b, 0, c, rows, steps, lanes)
                                for i in range(steps * W):
                                    y_T[i] += x_T[i]
                            if k == paths_K - 1:
                                for i in range(steps * W):
                                    gate = sigmoid(z_T[i])
                                    y_T[i] *= go_T[i] * gate * (ONE + z_T[i] * (ONE - gate))
                            store(dz, dz_at, y_T, b, 0, c, rows, steps, lanes)
                    for t in range(steps):
                        for n in range(N):
                            i = (t * N + n) * W
                            dB[part, b, k, g, rows[t], n] = sum_lanes(B_flat, i, W)
                            dC[part, b, k, g, rows[t], n] = sum_lanes(C_flat, i, W)
                for block in range(blocks):
                    c = g * channels + first + block * W
                    for j in range(min(W, stop - first - block * W)):
                        for n in range(N):
                            dA[b, k, c + j, n] = A_sum[block, n, j]
                        for t in range(T):
                            dD[b, k, c + j] += D_sum[block, t * W + j]
                            dbias[b, k, c + j] += bias_sum[block, t * W + j]

    return backward


@register_jitable
def positions(rows, path, begin, steps, length, width):
    """Where the steps of a tile lie in memory; path is an index into PATH_LETTERS."""
    for t in range(steps):
        step = begin + t if path % 2 == 0 else length - 1 - begin - t
        if path >= 2:
            height = length // width
            step = step % height * width + step // height
        rows[t] = step


@register_jitable
def load(tile, stream, at, b, k, c, rows, steps, lanes):
    """A tile of a block, zeros in the lanes it does not have."""
    base = b * at[0] + k * at[1] + c * at[2]
    if at[2] == 1 and lanes == LANES:
        for t in range(steps):
            copy_lanes(tile, t * LANES, stream, base + rows[t] * at[3], LANES)
        return
    for i in range(steps * LANES):
        tile[i] = 0
    for j in range(lanes):
        for t in range(steps):
            tile[t * LANES + j] = stream[base + j * at[2] + rows[t] * at[3]]


@register_jitable
def store(stream, at, tile, b, k, c, rows, steps, lanes):
    """Writes the lanes of a tile back."""
    base = b * at[0] + k * at[1] + c * at[2]
    if at[2] == 1 and lanes == LANES:
        for t in range(steps):
            copy_lanes(stream, base + rows[t] * at[3], tile, t * LANES, LANES)
        return
    for j in range(lanes):
        for t in range(steps):
            stream[base + j * at[2] + rows[t] * at[3]] = tile[t * LANES + j]


@register_jitable
def spread(tile, values, block, steps):
    """The same lanes at every step of a tile."""
    for t in range(steps):
        copy_lanes(tile, t * LANES, values, block * LANES, LANES)


@register_jitable
def load_factor(tile, factor, at, b, k, g, rows, steps):
    """B or C of a tile, strides (batch, path, group, state, position)."""
    base = b * at[0] + k * at[1] + g * at[2]
    for t in range(steps):
        for n in range(tile.shape[1]):
            tile[t, n] = factor[base + n * at[3] + rows[t] * at[4]]
