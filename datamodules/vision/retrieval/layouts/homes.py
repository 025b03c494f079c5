"""Where in a folder a data set lies, and remarks that several readers make."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from blocks.errors import SuiteError
from datamodules.inspection import Remark
from datamodules.vision.imagenet_labels import some


def homes(root: Path, names: Sequence[str], marker: Callable[[Path], bool]) -> list[Path]:
    """Folders that carry a data set: `root` alone, or those in it that bear a usual name.

    Args:
        root: Folder the user named.
        names: Names under which archives unpack.
        marker: Whether a folder holds the data set.
    """
    if marker(root):
        return [root]
    return [root / name for name in names if marker(root / name)]


def the_home(
    found: Sequence[Path], root: Path, complain: Callable[[SuiteError], None]
) -> Path | None:
    """The only folder found; none when there is none.

    Args:
        found: Folders that carry the data set.
        root: Folder the user named.
        complain: Hears of several.
    """
    if len(found) > 1:
        complain(
            SuiteError(
                expected="one data set",
                found=some([path.name for path in found]),
                where=str(root),
                cure=f"point data.init_args.root at one of them, such as {found[0]}",
            )
        )
    return found[0] if found else None


def noticed(
    what: str,
    paths: Sequence[str],
    expected: str,
    cure: str,
    level: Literal["error", "warning", "note"] = "note",
) -> tuple[Remark, ...]:
    """One remark about several files; none about no files.

    Args:
        what: What they are, for `found`.
        paths: The files.
        expected: What should be there.
        cure: What to do about it.
        level: How bad it is.
    """
    if not paths:
        return ()
    return (Remark(level, expected, f"{len(paths)} {what}", f"first {paths[0]}", cure),)
