"""Ways to walk the positions of a sequence or of a grid that is stored row by row.

    ">"  rows, first position to last: forward in time
    "<"  the same, last to first: reverse in time
    "v"  columns, first to last
    "^"  columns, last to first

A scan over several paths is written as one word: "><" is bidirectional, ">v<^" the cross scan of
VMamba (Liu et al., 2024). Positions stay where they are in memory; only the walk differs.
"""

import torch
from torch import Tensor

from blocks.errors import SuiteError

LETTERS = "><v^"
FORWARD, REVERSE = ">", "<"


def check_paths(paths: str, length: int, width: int | None, ragged: bool) -> None:
    """Raises a SuiteError unless the paths fit a sequence of this length.

    Args:
        paths: One letter per path.
        length: Number of positions.
        width: Columns of the grid; None for a sequence.
        ragged: Whether samples have lengths of their own.
    """
    columns = any(path in "v^" for path in paths)
    fits = width is not None and width > 0 and length % width == 0
    problem = None
    if not paths or set(paths) - set(LETTERS):
        problem = ("one or more of the letters > < v ^", repr(paths))
    elif columns and not fits:
        problem = (f"a width that divides the {length} positions", f"width={width}")
    elif columns and ragged:
        problem = ("no lengths beside column paths", f"lengths and paths={paths!r}")
    if problem is not None:
        expected, found = problem
        cure = "give the columns of the grid as width, and lengths for > and < only"
        where = "path_scan(paths=...)"
        raise SuiteError(expected=expected, found=found, where=where, cure=cure)


def column_order(length: int, width: int, device: torch.device) -> Tensor:
    """Positions of a row-major grid in the order of its columns, (L,)."""
    return torch.arange(length, device=device).view(-1, width).T.flatten()
