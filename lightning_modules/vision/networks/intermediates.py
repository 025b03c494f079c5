"""Which blocks or stages `forward_intermediates` gives: timm's ways of naming them."""

from collections.abc import Sequence

from blocks.errors import SuiteError


def chosen_indices(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Numbers of the wanted blocks or stages, counted from the first.

    Args:
        indices: Numbers, negative from the end; an int n = the last n; `None` = all.
        count: How many there are.

    Raises:
        SuiteError: A number outside them, or none at all.
    """
    if indices is None:
        return list(range(count))
    given = range(-indices, 0) if isinstance(indices, int) else indices
    if not given or not all(-count <= index < count for index in given):
        raise SuiteError(
            expected=f"numbers among 0 .. {count - 1} or -{count} .. -1, or how many of the last",
            found=f"{indices}",
            where="forward_intermediates(indices=...)",
            cure="leave indices out for all",
        )
    return [index % count for index in given]
