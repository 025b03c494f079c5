"""On which grid and with which stride were positions learned? What the number of patches tells.

A table of positions has a row a patch, and no shape. A square number is a square grid, as in every
release; another one a grid of the model's own proportions, as retrieval has them.

27 x 27 patches of 16 pixels are an image of 224 at stride 8, or one of 432 at stride 16, which
nobody trains on: so the weights are of stride 8, and a model of stride 16 would make little of them
(hustvl/Vim#119). Where both sizes are likely, the count cannot tell, and the model's own stride is
believed.
"""

import math
from collections.abc import Iterator

from blocks.errors import SuiteError
from blocks.positions import Grid
from lightning_modules.vision.networks.patch_embed import PatchEmbed

# The sizes of published weights; other sizes are likely where they are multiples of 32.
_PUBLISHED = (224, 384)


def likely_grid(patches: PatchEmbed, count: int) -> Grid | None:
    """Rows and columns of a table's positions.

    Args:
        patches: The model's patches.
        count: Positions in the file, without class tokens.

    Returns:
        A square grid, or one of the model's proportions; `None` where neither fits.
    """
    side = math.isqrt(max(count, 0))
    if side and side * side == count:
        return side, side
    rows, columns = patches.grid
    factor = math.gcd(rows, columns)
    scale = math.isqrt(max(count, 0) * factor * factor // (rows * columns))
    grid = (rows // factor * scale, columns // factor * scale)
    return grid if grid[0] * grid[1] == count and scale else None


def check_stride(patches: PatchEmbed, grid: Grid) -> None:
    """Refuses positions that were learned with another stride than the model has.

    Args:
        patches: The model's patches.
        grid: Rows and columns of the positions in the file.

    Raises:
        SuiteError: Their number speaks for another stride.
    """
    own = patches.stride
    strides = dict.fromkeys((own, patches.patch_size, patches.patch_size // 2))
    guesses = {stride: _likeliest(patches, grid, stride) for stride in strides if stride}
    best = min(guesses, key=lambda stride: guesses[stride][0])
    if best != own:
        pixels = guesses[best][1]
        rows, columns = grid
        raise SuiteError(
            expected=f"positions learned at stride {own}, as network.stride is",
            found=f"{rows} x {columns} of them: images of {pixels[0]} x {pixels[1]} pixels at "
            f"stride {best}, where stride {own} would need {(rows - 1) * own + patches.patch_size}",
            where="pos_embed of the checkpoint",
            cure=f"set network.init_args.stride to {best}, the model they are of; or, to start "
            f"training from them all the same, network.init_args.pretrained_stride to {best} "
            f"({own} if that is what they were trained with)",
        )


def _likeliest(patches: PatchEmbed, grid: Grid, stride: int) -> tuple[int, tuple[int, int]]:
    """How unlikely the images of such a grid are, and their size."""
    lowest = [(side - 1) * stride + patches.patch_size for side in grid]
    ranks, pixels = [], []
    for low, own in zip(lowest, patches.img_size, strict=True):
        rank, size = min(_ranked(range(low, low + stride), own), default=(2, low))
        ranks.append(rank)
        pixels.append(size)
    return max(ranks), (pixels[0], pixels[1])


def _ranked(sizes: range, own: int) -> Iterator[tuple[int, int]]:
    for size in sizes:
        if size in _PUBLISHED or size == own:
            yield 0, size
        elif size % 32 == 0:
            yield 1, size
