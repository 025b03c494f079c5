"""Parts of the kernels on a GPU: tiles, their rows, and elementary functions.

Axes: B batch, K path, G group, D channel, L place, T place of a chunk.
"""

# A tuple of rows grows, which Triton follows and mypy does not.
# mypy: disable-error-code="assignment"
import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x) without an overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def softplus(x, REAL: tl.constexpr):
    """log(1 + e^x), to the last digits where it is small too."""
    e = tl.exp(-tl.abs(x))
    if tl.float64 == REAL:
        w = 1.0 + e
        log1p = tl.log(w) - ((w - 1.0) - e) / w
    else:
        # 2 atanh(q), q <= 1/3: the logarithm of a GPU is exact in absolute terms only.
        q = e / (2.0 + e)
        p = q * q
        log1p = 1.0 / 11 + p * (1.0 / 13)
        log1p = 1.0 / 7 + p * (1.0 / 9 + p * log1p)
        log1p = 2.0 * q * (1.0 + p * (1.0 / 3 + p * (1.0 / 5 + p * log1p)))
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def to_rows(tile, T: tl.constexpr, BLOCK: tl.constexpr):
    """A tile (T, BLOCK) as a tuple of T rows; T is a power of two."""
    if T == 1:
        return (tl.reshape(tile, (BLOCK,)),)
    else:
        halves = tl.permute(tl.reshape(tile, (2, T // 2, BLOCK)), (1, 2, 0))
        first, second = tl.split(halves)
        return to_rows(first, T // 2, BLOCK) + to_rows(second, T // 2, BLOCK)


@triton.jit
def to_tile(rows, FIRST: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr):
    """T rows from the FIRST on as a tile."""
    if T == 1:
        return tl.reshape(rows[FIRST], (1, BLOCK))
    else:
        first = to_tile(rows, FIRST, T // 2, BLOCK)
        second = to_tile(rows, FIRST + T // 2, T // 2, BLOCK)
        return tl.reshape(tl.permute(tl.join(first, second), (2, 0, 1)), (T, BLOCK))


@triton.jit
def zero_rows(T: tl.constexpr, BLOCK: tl.constexpr, REAL: tl.constexpr):
    """T rows of zeros."""
    rows = ()
    for _ in tl.static_range(T):
        rows = rows + (tl.zeros((BLOCK,), REAL),)
    return rows


@triton.jit
def step_sizes(raw, bias, mask, SOFTPLUS: tl.constexpr, REAL: tl.constexpr):
    """S of a tile; 0 outside, which makes a step the identity."""
    s = raw.to(REAL) + bias[None, :]
    if SOFTPLUS:
        s = softplus(s, REAL)
    return tl.where(mask, s, 0.0)


@triton.jit
def load_tile(x, b, k, d, at, x_b, x_k, x_d, x_l, mask, REAL: tl.constexpr):
    """(T, BLOCK) of a stream, 0 outside."""
    places = x + b * x_b + k * x_k + at[:, None] * x_l + d[None, :] * x_d
    return tl.load(places, mask=mask, other=0).to(REAL)


@triton.jit
def store_tile(x, b, k, d, at, x_b, x_k, x_d, x_l, mask, tile):
    """Writes a tile into a stream, in its type."""
    places = x + b * x_b + k * x_k + at[:, None] * x_l + d[None, :] * x_d
    tl.store(places, tile.to(x.dtype.element_ty), mask=mask)


@triton.jit
def load_vector(x, at, mask, PRESENT: tl.constexpr, REAL: tl.constexpr):
    """(BLOCK,) of a vector that may be absent."""
    if PRESENT:
        return tl.load(x + at, mask=mask, other=0).to(REAL)
    else:
        return tl.zeros(at.shape, REAL)


@triton.jit
def split_program(groups, blocks, chunks, D, BLOCK: tl.constexpr):
    """Chunk and the rest of the program's number; group, block, its channels within and overall."""
    program = tl.program_id(0)
    block = program % (groups * blocks)
    chunk = program // (groups * blocks) % chunks
    rest = program // (groups * blocks * chunks)
    group = block // blocks
    inner = block % blocks * BLOCK + tl.arange(0, BLOCK)
    return chunk, rest, group, block % blocks, inner, group * (D // groups) + inner


@triton.jit
def places_of(
    chunk, b, lengths, L, columns, rows, width, RAGGED: tl.constexpr, COLUMNS: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """Where the places of a chunk lie in memory, which exist, and which of these count."""
    place = chunk * T + tl.arange(0, T)
    at = place
    if COLUMNS:
        at = tl.where(columns == 1, (place % rows) * width + place // rows, place)
    exists = place < L
    counts = exists
    if RAGGED:
        counts = place < tl.minimum(tl.load(lengths + b), L)
    return at, exists, counts
