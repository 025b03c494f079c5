"""How the scan's loops on a CPU reach memory: which positions, channels and lanes a tile has.

Streams are addresses with strides (batch, path, channel, position), B and C with strides (batch,
path, group, state, position); a tile is (steps, LANES) flat on the stack. Functions that are kept
apart from their callers compile once instead of a dozen times.
"""

from numba import carray
from numba.extending import register_jitable

from blocks.cpu.mathematics import copy_lanes, numbers_at, own_function, sum_lanes, transpose
from blocks.scan.cpu import LANES


@register_jitable
def whereabouts(task, sizes):
    """What a task covers: sample, group, part of the group's channels; where its blocks are."""
    _, groups, channels, span, _, _ = sizes
    parts, blocks_all = (channels + span - 1) // span, (channels + LANES - 1) // LANES
    b, rest = divmod(task, groups * parts)
    g, part = divmod(rest, parts)
    first = part * span
    blocks = (min(channels - first, span) + LANES - 1) // LANES
    return b, g, part, first, blocks, g * blocks_all + first // LANES, groups * blocks_all


@register_jitable
def channel(g, first, block, sizes):
    """First channel of a block, and how many of its lanes are channels."""
    offset = first + block * LANES
    return g * sizes[2] + offset, min(LANES, sizes[2] - offset)


@register_jitable
def positions(rows, path, begin, steps, length, width):
    """Where the steps of a tile lie in memory; path is an index into LETTERS."""
    own_function()
    for t in range(steps):
        step = begin + t if path % 2 == 0 else length - 1 - begin - t
        if path >= 2:
            height = length // width
            step = step % height * width + step // height
        rows[t] = step


@register_jitable
def consecutive(rows, steps):
    """Whether the steps of a tile are neighbours in memory, upwards or downwards."""
    step, neighbours = rows[1] - rows[0], 0
    for t in range(1, steps):
        neighbours += rows[t] - rows[t - 1] == step
    return (step == 1 or step == -1) and neighbours == steps - 1


@register_jitable
def fetch(target, i, address, j, count):
    """target[i : i + count] = memory[j : j + count]."""
    own_function()
    memory = carray(numbers_at(address, target[0]), (j + count,))
    for lane in range(count):
        target[i + lane] = memory[j + lane]


@register_jitable
def put(address, j, source, i, count):
    """memory[j : j + count] = source[i : i + count]."""
    own_function()
    memory = carray(numbers_at(address, source[0]), (j + count,))
    for lane in range(count):
        memory[j + lane] = source[i + lane]


@register_jitable
def load(tile, address, at, b, k, c, rows, steps, lanes):
    """A tile of a block, zeros in the lanes it does not have."""
    own_function()
    base = b * at[0] + k * at[1] + c * at[2]
    memory = carray(numbers_at(address, tile[0]), (1,))
    if at[2] == 1 and lanes == LANES:
        for t in range(steps):
            copy_lanes(tile, t * LANES, memory, base + rows[t] * at[3], LANES)
        return
    if at[3] == 1 and lanes == LANES and steps % LANES == 0 and consecutive(rows, steps):
        for t in range(0, steps, LANES):
            low, step = min(rows[t], rows[t + LANES - 1]), rows[1] - rows[0]
            first = (t if step > 0 else t + LANES - 1) * LANES
            transpose(tile, first, step * LANES, memory, base + low, at[2], LANES)
        return
    for i in range(steps * LANES):
        tile[i] = 0
    for j in range(lanes):
        for t in range(steps):
            tile[t * LANES + j] = memory[base + j * at[2] + rows[t] * at[3]]


@register_jitable
def store(address, at, tile, b, k, c, rows, steps, lanes):
    """Writes the lanes of a tile back."""
    own_function()
    base = b * at[0] + k * at[1] + c * at[2]
    memory = carray(numbers_at(address, tile[0]), (1,))
    if at[2] == 1 and lanes == LANES:
        for t in range(steps):
            copy_lanes(memory, base + rows[t] * at[3], tile, t * LANES, LANES)
        return
    if at[3] == 1 and lanes == LANES and steps % LANES == 0 and consecutive(rows, steps):
        for t in range(0, steps, LANES):
            low, step = min(rows[t], rows[t + LANES - 1]), rows[1] - rows[0]
            first = (t if step > 0 else t + LANES - 1) * LANES
            transpose(memory, base + low, at[2], tile, first, step * LANES, LANES)
        return
    for j in range(lanes):
        for t in range(steps):
            memory[base + j * at[2] + rows[t] * at[3]] = tile[t * LANES + j]


@register_jitable
def spread(tile, address, block, steps):
    """The lanes of a block's vector at every step of a tile, or zeros if there is none."""
    own_function()
    if address == 0:
        for i in range(steps * LANES):
            tile[i] = 0
        return
    memory = carray(numbers_at(address, tile[0]), (1,))
    for t in range(steps):
        copy_lanes(tile, t * LANES, memory, block * LANES, LANES)


@register_jitable
def fold(address, at, tiles, block, length):
    """Adds the rows of a block's tile up."""
    own_function()
    memory = carray(numbers_at(address, tiles[0]), (1,))
    for j in range(LANES):
        total = tiles[block * length * LANES + j]
        for t in range(1, length):
            total += tiles[(block * length + t) * LANES + j]
        memory[at * LANES + j] = total


@register_jitable
def load_factor(tile, address, at, b, k, g, rows, steps):
    """B or C of a tile, strides (batch, path, group, state, position)."""
    own_function()
    base = b * at[0] + k * at[1] + g * at[2]
    memory = carray(numbers_at(address, tile[0, 0]), (1,))
    for t in range(steps):
        for n in range(tile.shape[1]):
            tile[t, n] = memory[base + n * at[3] + rows[t] * at[4]]


@register_jitable
def store_sums(address, at, sums, rows, steps, states):
    """The gradient of B or C of a tile: its lanes summed up, (position, state)."""
    own_function()
    memory = carray(numbers_at(address, sums[0]), (1,))
    for t in range(steps):
        for n in range(states):
            total = sum_lanes(sums, (t * states + n) * LANES, LANES)
            memory[(at + rows[t]) * states + n] = total
