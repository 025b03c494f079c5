"""ScanNet's label table: what annotators wrote, and the ids of ScanNet200 and NYU for it."""

import csv
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import SuiteError

FILE_NAME = "scannetv2-labels.combined.tsv"


@dataclass(frozen=True)
class LabelTable:
    """Ids by raw category.

    Several raw categories share an id (`chair` and `stack of chairs`), so it is no way back.

    Args:
        ids: Id of ScanNet200, the column `id`.
        nyu40: Id among NYU's 40.
    """

    ids: dict[str, int]
    nyu40: dict[str, int]


def read_label_table(path: Path) -> LabelTable:
    """Reads scannetv2-labels.combined.tsv.

    Raises:
        SuiteError: No such file, or columns are missing.
    """
    if not path.is_file():
        raise SuiteError(
            expected=f"ScanNet's label table, {FILE_NAME}",
            found="no such file",
            where=str(path.parent),
            cure="copy it from the ScanNet download beside scans/",
        )
    ids, nyu40 = {}, {}
    with path.open(newline="", encoding="utf-8") as file:
        try:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                ids[row["raw_category"]] = int(row["id"])
                nyu40[row["raw_category"]] = int(row["nyu40id"] or 0)
        except (KeyError, TypeError, ValueError) as error:
            raise SuiteError(
                expected="tab-separated columns id, raw_category and nyu40id",
                found=f"{type(error).__name__}: {error}",
                where=str(path),
                cure="copy the table from the ScanNet download again",
            ) from error
    return LabelTable(ids, nyu40)


def find_label_table(root: Path) -> Path:
    """Where the table lies: beside the scans, or in meta_data/."""
    places = [folder / FILE_NAME for folder in (root, root / "meta_data", root.parent)]
    return next((path for path in places if path.is_file()), places[0])
