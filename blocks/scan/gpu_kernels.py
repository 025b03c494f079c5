"""The loops of the scan on a GPU, in Triton: chunks of time side by side, all paths in one launch.

    s = softplus(delta + bias);  h[t] = 2^(s A log2 e) h[t-1] + s B u;  y = C . h + D u

A sequence is cut into chunks of T places. Forward takes three launches:

1. `chunk_ends`: the state after each chunk had it begun with 0, and the sum of its step sizes;
2. `carry`: the state after each chunk as it is, from chunk to chunk, since 2^(A sum s) is the decay
   across one. This is what is kept;
3. `outputs`: every chunk from the state before it, for all paths that walk through it; their sum is
   gated and written once.

Backward is the same with time turned round: `chunk_ends` and `carry` of the adjoint state, then
`gradients`, which computes the states of a chunk again. Nothing is added up by atomics: partial
sums are written side by side and summed in a fixed order.

A program is one sample, one chunk and BLOCK channels of one warp. Memory is read and written by
tiles (T, BLOCK). Between, a tile is a tuple of T rows and time is unrolled, so that a thread holds
its channels for all of it and the recurrence crosses no threads, whatever layout the compiler
chooses. (Loads of single rows would do the same, but it takes minutes to compile hundreds of them.)
B, C and their gradients are numbers to a whole row; the host lays them out in the order of the
walk, where their addresses are constants.

A grid is walked along its rows or its columns. Chunks of these two families of paths are other
places of memory, so that each has programs of its own; `PATTERN` has a bit for each path of a
family, 1 for backwards, and `index` four bits for its number among all paths.

Axes: K path, B batch, G group, D channel, L place, N state, T place of a chunk, J path of a family.
"""

# A tuple of rows grows, which Triton follows and mypy does not.
# mypy: disable-error-code="assignment"
import triton
import triton.language as tl

from blocks.scan.gpu_tiles import (
    load_tile,
    load_vector,
    places_of,
    sigmoid,
    split_program,
    step_sizes,
    store_tile,
    to_rows,
    to_tile,
    zero_rows,
)

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def end_of_walk(
    s, stream, V, rates, ends, has_d, D, N, V_n, BACKWARDS: tl.constexpr, ADJOINT: tl.constexpr,
    REAL: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the end of each state. The adjoint decays in a step what the step adds as well."""
    for n in range(N):
        rate = tl.load(rates + n * D, mask=has_d, other=0)
        h = tl.zeros((BLOCK,), REAL)
        for i in tl.static_range(T):
            weight = tl.load(V + n * V_n + (T - 1 - i if BACKWARDS else i)).to(REAL)
            decay = tl.exp2((s[T - 1 - i] if BACKWARDS else s[i]) * rate)
            added = (stream[T - 1 - i] if BACKWARDS else stream[i]) * weight
            h = decay * (h + added) if ADJOINT else decay * h + added
        tl.store(ends + n * D, h, mask=has_d)


@triton.jit
def chunk_ends(
    x, x_b, x_k, x_d, x_l,  # u, or the gradient of the output
    delta, delta_b, delta_k, delta_d, delta_l,
    z, z_b, z_d, z_l,  # gate, for the adjoint
    V,  # B, or C for the adjoint
    rates, bias, lengths, ends, sums,
    D, L, N, paths, batch, groups, chunks, blocks, rows, width, families, index, column_family,
    J: tl.constexpr, PATTERN: tl.constexpr, COLUMNS: tl.constexpr, ADJOINT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, RAGGED: tl.constexpr,
    REAL: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """State after every chunk that begins with 0, (B, K, chunks, N, D), and sums of step sizes."""
    chunk, rest, group, _, inner, d = split_program(groups, blocks, chunks, D, BLOCK)
    b = (rest % batch).to(tl.int64)
    family, mine = rest // batch % families, rest // (batch * families)
    has_d = inner < D // groups
    at, _, counts = places_of(
        chunk, b, lengths, L, family == column_family, rows, width, RAGGED, COLUMNS, T
    )
    mask = counts[:, None] & has_d[None, :]
    k = (index >> (4 * (family * J + mine)) & 15).to(tl.int64)
    raw = load_tile(delta, b, k, d, at, delta_b, delta_k, delta_d, delta_l, mask, REAL)
    s = step_sizes(raw, load_vector(bias, k * D + d, has_d, HAS_BIAS, REAL), mask, SOFTPLUS, REAL)
    stream = load_tile(x, b, k, d, at, x_b, x_k, x_d, x_l, mask, REAL)
    if HAS_Z:
        gate = load_tile(z, b, 0, d, at, z_b, 0, z_d, z_l, mask, REAL)
        stream *= gate * sigmoid(gate)
    if not ADJOINT:
        stream *= s
    # Slots of chunks are in the order of the walk.
    backwards = PATTERN >> mine & 1
    slot = (b * paths + k) * chunks + tl.where(backwards == 1, chunks - 1 - chunk, chunk)
    tl.store(sums + slot * D + d, tl.sum(s, 0), mask=has_d)
    s_rows, x_rows = to_rows(s, T, BLOCK), to_rows(stream, T, BLOCK)
    V_at = V + ((b * paths + k) * groups + group) * N * (chunks * T) + chunk * T
    rates_at, ends_at = rates + k * N * D + d, ends + slot * N * D + d
    # The adjoint goes against the walk.
    if (backwards == 1) != ADJOINT:
        end_of_walk(s_rows, x_rows, V_at, rates_at, ends_at, has_d, D, N, chunks * T,
                    True, ADJOINT, REAL, T, BLOCK)  # fmt: skip
    else:
        end_of_walk(s_rows, x_rows, V_at, rates_at, ends_at, has_d, D, N, chunks * T,
                    False, ADJOINT, REAL, T, BLOCK)  # fmt: skip


@triton.jit
def carry(
    ends, sums, rates, first, D, N, paths, chunks, blocks,
    ADJOINT: tl.constexpr, HAS_FIRST: tl.constexpr, REAL: tl.constexpr, T: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Replaces every chunk's own end by the state after it; `first` (B, K, N, D) comes before."""
    program = tl.program_id(0)
    d = program % blocks * BLOCK + tl.arange(0, BLOCK)
    n = program // blocks % N
    bk = (program // (blocks * N)).to(tl.int64)
    rate = tl.load(rates + (bk % paths * N + n) * D + d, mask=d < D, other=0)
    h = load_vector(first, (bk * N + n) * D + d, d < D, HAS_FIRST, REAL)
    for start in range(0, chunks, T):
        end = ()
        passed = ()
        for i in tl.static_range(T):
            chunk = chunks - 1 - start - i if ADJOINT else start + i
            mask = d < tl.where(start + i < chunks, D, 0)
            at = bk * chunks + chunk
            end = end + (tl.load(ends + (at * N + n) * D + d, mask=mask, other=0),)
            passed = passed + (tl.load(sums + at * D + d, mask=mask, other=0),)
        for i in tl.static_range(T):
            chunk = chunks - 1 - start - i if ADJOINT else start + i
            mask = d < tl.where(start + i < chunks, D, 0)
            h = tl.exp2(passed[i] * rate) * h + end[i]
            tl.store(ends + ((bk * chunks + chunk) * N + n) * D + d, h, mask=mask)


@triton.jit
def add_walk(y, s, stream, h, rate, B, C, BACKWARDS: tl.constexpr, REAL: tl.constexpr,
             T: tl.constexpr):  # fmt: skip
    """Rows y with C h of one state added, from the state h before the chunk."""
    added = ()
    for i in tl.static_range(T):
        t = T - 1 - i if BACKWARDS else i
        weight = tl.load(B + t).to(REAL)
        read = tl.load(C + t).to(REAL)
        if BACKWARDS:
            h = tl.exp2(s[T - 1 - i] * rate) * h + stream[T - 1 - i] * weight
            added = (y[T - 1 - i] + h * read,) + added
        else:
            h = tl.exp2(s[i] * rate) * h + stream[i] * weight
            added = added + (y[i] + h * read,)
    return added


@triton.jit
def outputs(
    u, u_b, u_k, u_d, u_l,
    delta, delta_b, delta_k, delta_d, delta_l,
    z, z_b, z_d, z_l,
    B, C, rates, skip, bias, lengths, kept,
    out, out_f, out_b, out_d, out_l,
    D, L, N, paths, batch, groups, chunks, blocks, rows, width, families, index, column_family,
    J: tl.constexpr, PATTERN: tl.constexpr, COLUMNS: tl.constexpr, HAS_SKIP: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, RAGGED: tl.constexpr,
    REAL: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The sum of a family's paths, gated where `z` is; families are `out_f` apart."""
    chunk, rest, group, _, inner, d = split_program(groups, blocks, chunks, D, BLOCK)
    b, family, has_d = (rest % batch).to(tl.int64), rest // batch, inner < D // groups
    at, exists, counts = places_of(
        chunk, b, lengths, L, family == column_family, rows, width, RAGGED, COLUMNS, T
    )
    mask = counts[:, None] & has_d[None, :]
    skipped = tl.zeros((T, BLOCK), REAL)
    y = zero_rows(T, BLOCK, REAL)
    for j in tl.static_range(J):
        k = (index >> (4 * (family * J + j)) & 15).to(tl.int64)
        raw = load_tile(delta, b, k, d, at, delta_b, delta_k, delta_d, delta_l, mask, REAL)
        bias_d = load_vector(bias, k * D + d, has_d, HAS_BIAS, REAL)
        s = step_sizes(raw, bias_d, mask, SOFTPLUS, REAL)
        x = load_tile(u, b, k, d, at, u_b, u_k, u_d, u_l, mask, REAL)
        skipped += load_vector(skip, k * D + d, has_d, HAS_SKIP, REAL)[None, :] * x
        s_rows, x_rows = to_rows(s, T, BLOCK), to_rows(s * x, T, BLOCK)
        walked = chunks - 1 - chunk if PATTERN >> j & 1 else chunk
        before = kept + ((b * paths + k) * chunks + walked - 1) * N * D + d
        has_before = inner < tl.where(walked > 0, D // groups, 0)
        factor = ((b * paths + k) * groups + group) * N * (chunks * T) + chunk * T
        for n in range(N):
            rate = tl.load(rates + (k * N + n) * D + d, mask=has_d, other=0)
            h = tl.load(before + n * D, mask=has_before, other=0)
            at_n = factor + n * (chunks * T)
            y = add_walk(
                y, s_rows, x_rows, h, rate, B + at_n, C + at_n, (PATTERN >> j & 1) == 1, REAL, T
            )
    total = to_tile(y, 0, T, BLOCK) + skipped
    if HAS_Z:
        gate = load_tile(z, b, 0, d, at, z_b, 0, z_d, z_l, mask, REAL)
        total *= gate * sigmoid(gate)
    inside = exists[:, None] & has_d[None, :]
    store_tile(
        out, b, family, d, at, out_b, out_f, out_d, out_l, inside, tl.where(mask, total, 0.0)
    )


@triton.jit
def gradient_walk(
    y, q_B, A_r, s, stream, g, h, p, rate, B, C, dB, dC, BACKWARDS: tl.constexpr,
    WITH_Y: tl.constexpr, REAL: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """There and back through a chunk for one state, from h before it and p after it.

    Returns the rows y, q_B and A_r with this state's share, and the gradient of A.
    """
    decays, decayed, read = (), (), ()
    for i in tl.static_range(T):
        # Place i of the walk in memory order, written out: an index must be a constant.
        C_t = tl.load(C + (T - 1 - i if BACKWARDS else i)).to(REAL)
        B_t = tl.load(B + (T - 1 - i if BACKWARDS else i)).to(REAL)
        if BACKWARDS:
            decay = tl.exp2(s[T - 1 - i] * rate)
            decayed = decayed + (decay * h,)
            h = decay * h + stream[T - 1 - i] * B_t
            tl.store(dC + T - 1 - i, tl.sum(g[T - 1 - i] * h, 0))
            if WITH_Y:
                read = (y[T - 1 - i] + h * C_t,) + read
        else:
            decay = tl.exp2(s[i] * rate)
            decayed = decayed + (decay * h,)
            h = decay * h + stream[i] * B_t
            tl.store(dC + i, tl.sum(g[i] * h, 0))
            if WITH_Y:
                read = read + (y[i] + h * C_t,)
        decays = decays + (decay,)
    sum_B, sum_A = (), ()
    dA = tl.zeros(h.shape, REAL)
    for i in tl.static_range(T):
        C_t = tl.load(C + (i if BACKWARDS else T - 1 - i)).to(REAL)
        B_t = tl.load(B + (i if BACKWARDS else T - 1 - i)).to(REAL)
        if BACKWARDS:
            q = g[i] * C_t + p
            r = q * decayed[T - 1 - i]
            tl.store(dB + i, tl.sum(q * stream[i], 0))
            sum_B = sum_B + (q_B[i] + q * B_t,)
            sum_A = sum_A + (A_r[i] + r * rate,)
            dA += r * s[i]
        else:
            q = g[T - 1 - i] * C_t + p
            r = q * decayed[T - 1 - i]
            tl.store(dB + T - 1 - i, tl.sum(q * stream[T - 1 - i], 0))
            sum_B = (q_B[T - 1 - i] + q * B_t,) + sum_B
            sum_A = (A_r[T - 1 - i] + r * rate,) + sum_A
            dA += r * s[T - 1 - i]
        p = decays[T - 1 - i] * q
    return read if WITH_Y else y, sum_B, sum_A, dA


@triton.jit
def gradients(
    u, u_b, u_k, u_d, u_l,
    delta, delta_b, delta_k, delta_d, delta_l,
    z, z_b, z_d, z_l,
    B, C, rates, skip, bias, lengths, kept,
    grad, grad_b, grad_d, grad_l,
    adjoint, last,
    du, du_f, du_b, du_k, du_d, du_l,
    ddelta, ddelta_b, ddelta_k, ddelta_d, ddelta_l,
    dz, dz_f, dz_b, dz_d, dz_l,
    dB, dC, dskip, dbias,
    D, L, N, paths, batch, groups, chunks, blocks, rows, width, families, index, column_family,
    J: tl.constexpr, PATTERN: tl.constexpr, COLUMNS: tl.constexpr, SHARED: tl.constexpr,
    HAS_SKIP: tl.constexpr, HAS_Z: tl.constexpr, MERGED: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_LAST: tl.constexpr, SOFTPLUS: tl.constexpr, RAGGED: tl.constexpr, REAL: tl.constexpr,
    T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of a chunk.

    With q = dL/dh and p[t] = a[t] q[t], from the end of the walk to its beginning:

        q = C g + p';  dC = g h,  dB = q s u,  du = s (q . B) + D g
        r = q a h_before,  ds = u (q . B) + A . r,  dA = s r

    `adjoint` holds the p that leaves each chunk; once read, its place takes the dA of the chunk
    before. `dz` takes the sum of a family's paths where there are two (not MERGED).
    """
    chunk, rest, group, block, inner, d = split_program(groups, blocks, chunks, D, BLOCK)
    b, family, has_d = (rest % batch).to(tl.int64), rest // batch, inner < D // groups
    at, exists, counts = places_of(
        chunk, b, lengths, L, family == column_family, rows, width, RAGGED, COLUMNS, T
    )
    mask, inside = counts[:, None] & has_d[None, :], exists[:, None] & has_d[None, :]
    g = load_tile(grad, b, 0, d, at, grad_b, 0, grad_d, grad_l, mask, REAL)
    if HAS_Z:
        gate = load_tile(z, b, 0, d, at, z_b, 0, z_d, z_l, mask, REAL)
        g *= gate * sigmoid(gate)
    g_rows = to_rows(g, T, BLOCK)
    y = zero_rows(T, BLOCK, REAL)
    skipped, du_sum = tl.zeros((T, BLOCK), REAL), tl.zeros((T, BLOCK), REAL)

    for j in tl.static_range(J):
        k = (index >> (4 * (family * J + j)) & 15).to(tl.int64)
        bias_d = load_vector(bias, k * D + d, has_d, HAS_BIAS, REAL)
        skip_d = load_vector(skip, k * D + d, has_d, HAS_SKIP, REAL)
        raw = load_tile(delta, b, k, d, at, delta_b, delta_k, delta_d, delta_l, mask, REAL)
        s = step_sizes(raw, bias_d, mask, SOFTPLUS, REAL)
        x = load_tile(u, b, k, d, at, u_b, u_k, u_d, u_l, mask, REAL)
        if HAS_Z:
            skipped += skip_d[None, :] * x
        s_rows, x_rows = to_rows(s, T, BLOCK), to_rows(s * x, T, BLOCK)
        q_B, A_r = zero_rows(T, BLOCK, REAL), zero_rows(T, BLOCK, REAL)

        walked = chunks - 1 - chunk if PATTERN >> j & 1 else chunk
        own = (b * paths + k) * chunks
        before = kept + (own + walked - 1) * N * D + d
        has_before = inner < tl.where(walked > 0, D // groups, 0)
        # The last chunk takes the gradient of the last state, and a place that nobody reads.
        follows = (walked + 1) % chunks
        after = adjoint + (own + follows) * N * D + d
        has_after = inner < tl.where(follows > 0, D // groups, 0)
        is_last = inner < tl.where(follows > 0, 0, D // groups)
        factor = ((b * paths + k) * groups + group) * N * (chunks * T) + chunk * T
        part = block * batch * paths * groups * N * (chunks * T)
        for n in range(N):
            rate = tl.load(rates + (k * N + n) * D + d, mask=has_d, other=0)
            h = tl.load(before + n * D, mask=has_before, other=0)
            p = tl.load(after + n * D, mask=has_after, other=0)
            if HAS_LAST:
                p += tl.load(last + ((b * paths + k) * N + n) * D + d, mask=is_last, other=0)
            at_n = factor + n * (chunks * T)
            y, q_B, A_r, dA = gradient_walk(
                y, q_B, A_r, s_rows, x_rows, g_rows, h, p, rate, B + at_n, C + at_n,
                dB + part + at_n, dC + part + at_n, (PATTERN >> j & 1) == 1, HAS_Z, REAL, T,
            )  # fmt: skip
            tl.store(after + n * D, dA, mask=has_d)

        # Read once more: cheaper than to hold them.
        raw = load_tile(delta, b, k, d, at, delta_b, delta_k, delta_d, delta_l, mask, REAL)
        x = load_tile(u, b, k, d, at, u_b, u_k, u_d, u_l, mask, REAL)
        qB = to_tile(q_B, 0, T, BLOCK)
        ds = to_tile(A_r, 0, T, BLOCK) * LN_2 + x * qB
        if SOFTPLUS:
            ds *= sigmoid(raw + bias_d[None, :])
        ds = tl.where(mask, ds, 0.0)
        s = step_sizes(raw, bias_d, mask, SOFTPLUS, REAL)
        g = to_tile(g_rows, 0, T, BLOCK)
        dx = tl.where(mask, s * qB + skip_d[None, :] * g, 0.0)
        store_tile(ddelta, b, k, d, at, ddelta_b, ddelta_k, ddelta_d, ddelta_l, inside, ds)
        if SHARED:
            du_sum += dx
        else:
            store_tile(du, b, k, d, at, du_b, du_k, du_d, du_l, inside, dx)
        vector_at = ((b * chunks + chunk) * paths + k) * D + d
        if HAS_SKIP:
            tl.store(dskip + vector_at, tl.sum(g * x, 0), mask=has_d)
        if HAS_BIAS:
            tl.store(dbias + vector_at, tl.sum(ds, 0), mask=has_d)

    if SHARED:
        store_tile(du, b, family, d, at, du_b, du_f, du_d, du_l, inside, du_sum)
    if HAS_Z:
        total = to_tile(y, 0, T, BLOCK) + skipped
        if MERGED:
            given = load_tile(grad, b, 0, d, at, grad_b, 0, grad_d, grad_l, mask, REAL)
            gate = load_tile(z, b, 0, d, at, z_b, 0, z_d, z_l, mask, REAL)
            half = sigmoid(gate)
            total *= given * half * (1.0 + gate * (1.0 - half))
        total = tl.where(mask, total, 0.0)
        store_tile(dz, b, family, d, at, dz_b, dz_f, dz_d, dz_l, inside, total)
