"""The layouts of retrieval sets: their trees in words, their tests, their readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from blocks.errors import SuiteError
from datamodules.vision.layouts.request import listing
from datamodules.vision.retrieval.layouts import (
    folders,
    market1501,
    msmt17,
    tables,
    university1652,
)
from datamodules.vision.retrieval.records import Listing, Wanted

RetrievalLayoutName = Literal[
    "market1501", "dukemtmc", "msmt17", "university1652", "table", "folders"
]


class RetrievalLayout(NamedTuple):
    """A way in which a data set lies on the disk: its tree in words, its test, its reader."""

    tree: str
    follows: Callable[[Path], bool]
    read: Callable[[Wanted], Listing]


# In the order in which they are looked for: a folder may hold the traces of several.
LAYOUTS: dict[RetrievalLayoutName, RetrievalLayout] = {
    "market1501": RetrievalLayout(
        market1501.MARKET_TREE, market1501.is_market, market1501.read_market
    ),
    "dukemtmc": RetrievalLayout(market1501.DUKE_TREE, market1501.is_duke, market1501.read_duke),
    "msmt17": RetrievalLayout(msmt17.MSMT17_TREE, msmt17.is_msmt17, msmt17.read_msmt17),
    "university1652": RetrievalLayout(
        university1652.UNIVERSITY_TREE,
        university1652.is_university,
        university1652.read_university,
    ),
    "folders": RetrievalLayout(folders.FOLDERS_TREE, folders.is_folders, folders.read_folders),
    "table": RetrievalLayout(tables.TABLE_TREE, tables.is_table, tables.read_table),
}
assert set(LAYOUTS) == set(get_args(RetrievalLayoutName))


def read_listing(wanted: Wanted, layout: RetrievalLayoutName | Literal["auto"] = "auto") -> Listing:
    """Lists the images of a retrieval set.

    Args:
        wanted: Which data set, and what of it.
        layout: How its files lie, or `auto` to look.

    Raises:
        SuiteError: Something is missing or contradicts itself; the message shows the tree.
    """
    return LAYOUTS[detect(wanted.root) if layout == "auto" else layout].read(wanted)


def detect(root: Path) -> RetrievalLayoutName:
    """Tells the layout of a data set from the names of its files.

    Raises:
        SuiteError: It follows no layout, or holds several data sets.
    """
    followed = [name for name, layout in LAYOUTS.items() if layout.follows(root)]
    if not followed:
        trees = "\n".join(f" {name}:{layout.tree}" for name, layout in LAYOUTS.items())
        raise SuiteError(
            expected=f"one of these trees\n{trees}",
            found=listing(root),
            where=str(root),
            cure="point data.init_args.root at the folder of the data set",
        )
    if len(followed) > 1:
        raise SuiteError(
            expected="one data set",
            found=f"the layouts {' and '.join(followed)}",
            where=str(root),
            cure="name the one you mean in data.init_args.layout, or point "
            "data.init_args.root at its folder",
        )
    return followed[0]
