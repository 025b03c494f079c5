"""`table`: a CSV or parquet file that lists the images.

Columns are `path` (relative to the table's folder, or absolute), `id`, `split` (train, query,
gallery), and if known `camera` and `view`. Without cameras, queries and gallery count as two.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from blocks.errors import SuiteError
from datamodules.vision.layouts.request import listing, wrong
from datamodules.vision.retrieval.layouts.folders import CAMERA_WITHOUT_NAMES, same_number
from datamodules.vision.retrieval.layouts.homes import noticed, the_home
from datamodules.vision.retrieval.records import (
    JUNK,
    SPLITS,
    Listing,
    Record,
    Wanted,
    in_order,
    numbered,
    places,
)

TABLE_TREE = """
  root, or the only *.csv or *.parquet in it, with the columns
  path, id, split (train, query, gallery), and perhaps camera and view"""

_SUFFIXES = {".csv", ".parquet"}
_COLUMNS = ("path", "id", "split")


def is_table(root: Path) -> bool:
    """Whether it is a table, or a folder with one."""
    return bool(_tables(root))


def read_table(wanted: Wanted) -> Listing:
    """Lists the layout `table`."""
    source = the_home(_tables(wanted.root), wanted.root, wanted.complain)
    if source is None:
        wanted.complain(wrong("table", TABLE_TREE, listing(wanted.root), wanted.root))
        return Listing("table", wanted.root, ())
    rows = list(_rows(source, wanted))
    number = numbered(row["id"] for row in rows)
    cameras = _places(rows, "camera", source, wanted)
    views = _places(rows, "view", source, wanted)
    camera_of = {"": None, **cameras}
    records = []
    for row in rows:
        camera = camera_of.get(row["camera"])
        records.append(
            Record(
                path=str(source.parent / row["path"]),
                identity=number[row["id"]],
                camera=CAMERA_WITHOUT_NAMES[row["split"]] if camera is None else camera,
                view=views.get(row["view"], 0),
                split=row["split"],
            )
        )
    junk = [record.path for record in records if record.identity <= JUNK]
    return Listing(
        layout="table",
        home=source.parent,
        records=in_order(records),
        views=tuple(views) or ("image",),
        remarks=(
            *same_number(number, source),
            *noticed(
                "rows of a negative identity (junk), left out",
                junk,
                "images of known identities",
                "nothing to do, if -1 was meant for junk",
            ),
        ),
    )


def _tables(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix in _SUFFIXES else []
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.suffix in _SUFFIXES)


def _rows(source: Path, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Rows as text; those without path, id or a known split are complained of and left out."""
    columns, rows = _parquet(source) if source.suffix == ".parquet" else _csv(source)
    if missing := [name for name in _COLUMNS if name not in columns]:
        found = f"no {', '.join(missing)} among {', '.join(columns) or 'no columns'}"
        wanted.complain(wrong("table", TABLE_TREE, found, source))
        return
    for number, row in enumerate(rows, start=2):  # The header is line 1.
        texts = {n: _text(row.get(n)) for n in (*_COLUMNS, "camera", "view")}
        if not texts["path"] or not texts["id"] or texts["split"] not in SPLITS:
            found = ", ".join(f"{name}={texts[name]!r}" for name in _COLUMNS)
            where = Path(f"{source}, line {number}")
            wanted.complain(wrong("table", TABLE_TREE, found, where, "correct the row"))
            continue
        yield texts


def _text(value: Any) -> str:
    """A cell as text; a whole number that a writer stored as 3.0, for gaps in its column, as 3."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _csv(source: Path) -> tuple[Sequence[str], list[dict[str, Any]]]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            return tuple(reader.fieldnames or ()), rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(source, error) from error


def _parquet(source: Path) -> tuple[Sequence[str], list[dict[str, Any]]]:
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(source).names
        wanted = [name for name in (*_COLUMNS, "camera", "view") if name in columns]
        return columns, pq.read_table(source, columns=wanted).to_pylist()
    except Exception as error:  # Arrow's errors have no common base but this one.
        raise _damaged(source, error) from error


def _damaged(source: Path, error: Exception) -> SuiteError:
    return SuiteError(
        expected=f"a table in {source.suffix[1:]} format",
        found=f"a file that cannot be read ({str(error)[:160]})",
        where=str(source),
        cure="write it again, as UTF-8",
    )


def _places(
    rows: list[dict[str, Any]], column: str, source: Path, wanted: Wanted
) -> dict[str, int]:
    """Place of each value of a column among the sorted ones; nothing of an empty column."""
    values = [row[column] for row in rows]
    if gaps := values.count(""):
        if gaps < len(values):
            wanted.complain(
                SuiteError(
                    expected=f"a {column} in every row, or in none",
                    found=f"{gaps} of {len(values)} rows without one",
                    where=str(source),
                    cure=f"complete the column {column}, or remove it",
                )
            )
        return {}
    return places(values)
