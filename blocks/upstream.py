"""From the constructor arguments of a published network to ours."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from blocks.errors import SuiteError


def renamed(
    config: Mapping[str, Any], names: Mapping[str, str | None], where: str
) -> dict[str, Any]:
    """Renames the keys of an upstream configuration.

    Args:
        config: Keyword arguments in upstream's spelling.
        names: Our name for each upstream one; None where it has no meaning here.
        where: Whose configuration it is, for the message.

    Returns:
        Keyword arguments in our spelling.

    Raises:
        SuiteError: A key that upstream does not know either.
    """
    for key in config:
        if key not in names:
            near = get_close_matches(key, names, n=1, cutoff=0.0)
            raise SuiteError(
                expected="keys among " + ", ".join(names),
                found=repr(key),
                where=where,
                cure=f"did you mean {near[0]!r}?",
            )
    return {ours: config[key] for key, ours in names.items() if ours is not None and key in config}
