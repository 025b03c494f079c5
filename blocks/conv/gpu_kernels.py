"""The depthwise convolution on a GPU, in Triton: all paths, bias and silu in one launch.

With r = t - d (W - 1 - i) the place that tap i reads for the output at t, and d = 1 or -1 the
direction of a path,

    p[t] = bias + sum_i w[i] x[r];  out = silu(p)
    g = grad silu'(p);  dx[r] += w[i] g[t];  dw[i] = sum_t g[t] x[r];  dbias = sum_t g[t]

Backward takes two launches: `gradients` writes g and the sums over its places, `spread` collects dx
from g. A program is one sample, T places and BLOCK channels; rows of a tile lie side by side in
memory. Taps read the tile again, shifted, out of the cache.

Axes: K path, B batch, D channel, L place, W tap, T place of a tile.
"""

import triton
import triton.language as tl

from blocks.scan.gpu_tiles import load_tile, load_vector, sigmoid, store_tile


@triton.jit
def place(b_parts, blocks, lengths, D, L, RAGGED: tl.constexpr, T: tl.constexpr,
          BLOCK: tl.constexpr):  # fmt: skip
    """Sample, tile, places, channels, and how many places of the sample count."""
    program = tl.program_id(0)
    d = program % blocks * BLOCK + tl.arange(0, BLOCK)
    tile = program // blocks % b_parts
    b = (program // (blocks * b_parts)).to(tl.int64)
    valid = L
    if RAGGED:
        valid = tl.minimum(tl.load(lengths + b), L)
    return b, tile, tile * T + tl.arange(0, T), d, valid


@triton.jit
def preactivation(
    x, x_b, x_d, x_l, w, bias, b, k, t, d, D, valid, BACKWARDS: tl.constexpr,
    HAS_BIAS: tl.constexpr, REAL: tl.constexpr, W: tl.constexpr, T: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """P of a tile."""
    p = tl.zeros((T, BLOCK), REAL) + load_vector(bias, k * D + d, d < D, HAS_BIAS, REAL)[None, :]
    for i in tl.static_range(W):
        r = t + (W - 1 - i) if BACKWARDS else t - (W - 1 - i)
        mask = ((r >= 0) & (r < valid))[:, None] & (d < D)[None, :]
        tap = load_vector(w, (k * W + i) * D + d, d < D, True, REAL)
        p += tap[None, :] * load_tile(x, b, 0, d, r, x_b, 0, x_d, x_l, mask, REAL)
    return p


@triton.jit
def outputs(
    x, x_b, x_d, x_l, w, bias, lengths, out, out_b, out_k, out_d, out_l,
    D, L, tiles, blocks,
    K: tl.constexpr, PATTERN: tl.constexpr, SILU: tl.constexpr, HAS_BIAS: tl.constexpr,
    RAGGED: tl.constexpr, REAL: tl.constexpr, W: tl.constexpr, T: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The convolution along every path; bit k of PATTERN says that path k runs backwards."""
    b, _, t, d, valid = place(tiles, blocks, lengths, D, L, RAGGED, T, BLOCK)
    for k in tl.static_range(K):
        p = preactivation(
            x, x_b, x_d, x_l, w, bias, b, k, t, d, D, valid, (PATTERN >> k & 1) == 1, HAS_BIAS,
            REAL, W, T, BLOCK,
        )  # fmt: skip
        if SILU:
            p *= sigmoid(p)
        p = tl.where((t < valid)[:, None], p, 0.0)
        inside = (t < L)[:, None] & (d < D)[None, :]
        store_tile(out, b, k, d, t, out_b, out_k, out_d, out_l, inside, p)


@triton.jit
def gradients(
    x, x_b, x_d, x_l, w, bias, lengths, grad, grad_b, grad_k, grad_d, grad_l,
    g_out, g_b, g_k, g_d, g_l, dw, dbias,
    D, L, tiles, blocks,
    K: tl.constexpr, PATTERN: tl.constexpr, SILU: tl.constexpr, HAS_BIAS: tl.constexpr,
    RAGGED: tl.constexpr, REAL: tl.constexpr, W: tl.constexpr, T: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """G along every path; this tile's share of dw, (B, tiles, K, W, D), and dbias, without W."""
    b, tile, t, d, valid = place(tiles, blocks, lengths, D, L, RAGGED, T, BLOCK)
    counts = (t < valid)[:, None] & (d < D)[None, :]
    for k in tl.static_range(K):
        g = load_tile(grad, b, k, d, t, grad_b, grad_k, grad_d, grad_l, counts, REAL)
        if SILU:
            p = preactivation(
                x, x_b, x_d, x_l, w, bias, b, k, t, d, D, valid, (PATTERN >> k & 1) == 1,
                HAS_BIAS, REAL, W, T, BLOCK,
            )  # fmt: skip
            half = sigmoid(p)
            g *= half * (1.0 + p * (1.0 - half))
        store_tile(g_out, b, k, d, t, g_b, g_k, g_d, g_l, (t < L)[:, None] & (d < D)[None, :], g)
        part = (b * tiles + tile) * K + k
        for i in tl.static_range(W):
            r = t + (W - 1 - i) if PATTERN >> k & 1 else t - (W - 1 - i)
            mask = ((r >= 0) & (r < valid))[:, None] & (d < D)[None, :]
            taken = load_tile(x, b, 0, d, r, x_b, 0, x_d, x_l, mask, REAL)
            tl.store(dw + (part * W + i) * D + d, tl.sum(g * taken, 0), mask=d < D)
        if HAS_BIAS:
            tl.store(dbias + part * D + d, tl.sum(g, 0), mask=d < D)


@triton.jit
def spread(
    g, g_b, g_k, g_d, g_l, w, lengths, dx, dx_b, dx_d, dx_l,
    D, L, tiles, blocks,
    K: tl.constexpr, PATTERN: tl.constexpr, RAGGED: tl.constexpr, REAL: tl.constexpr,
    W: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Dx of a tile: what all taps of all paths took from it."""
    b, _, r, d, valid = place(tiles, blocks, lengths, D, L, RAGGED, T, BLOCK)
    dx_r = tl.zeros((T, BLOCK), REAL)
    for k in tl.static_range(K):
        for i in tl.static_range(W):
            t = r - (W - 1 - i) if PATTERN >> k & 1 else r + (W - 1 - i)
            mask = ((t >= 0) & (t < valid))[:, None] & (d < D)[None, :]
            tap = load_vector(w, (k * W + i) * D + d, d < D, True, REAL)
            dx_r += tap[None, :] * load_tile(g, b, k, d, t, g_b, g_k, g_d, g_l, mask, REAL)
    dx_r = tl.where((r < valid)[:, None], dx_r, 0.0)
    store_tile(dx, b, 0, d, r, dx_b, 0, dx_d, dx_l, (r < L)[:, None] & (d < D)[None, :], dx_r)
