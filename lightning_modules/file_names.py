"""Names of files for things that people have named."""

import re
from collections.abc import Iterable


def file_names(sources: Iterable[str], taken: Iterable[str] = (), empty: str = "x") -> list[str]:
    """A name for each source: letters, digits, dots and dashes, no two alike.

    Args:
        sources: What things are called; may repeat.
        taken: Names that are not free, in lower case.
        empty: Name of a source of which nothing is left.
    """
    found: list[str] = []
    # Some file systems do not tell A from a.
    used = set(taken)
    for source in sources:
        # Names of files end at 255 bytes, and something may be appended.
        plain = re.sub(r"[^\w.-]+", "_", source).lstrip(".")[:80] or empty
        name, copies = plain, 1
        while name.lower() in used:
            copies += 1
            name = f"{plain}-{copies}"
        used.add(name.lower())
        found.append(name)
    return found
