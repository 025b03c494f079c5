"""`parquet`: tables as dataset hubs keep them, with the encoded images in a column.

Columns are `image`, a struct of `bytes` and `path`, and `label`, int64. Only the labels are read at
first. Parquet is read by row groups: an image drawn at random costs its whole group.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blocks.errors import SuiteError
from datamodules.vision.layouts.archive_files import chosen_files, class_names, split_files
from datamodules.vision.layouts.cached_index import Arrays, cached_arrays
from datamodules.vision.layouts.request import LabelledImages, Request, nothing

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PARQUET_TREE = """
  root/data/{train,validation}-00000-of-000NN.parquet  (also root/, root/default/{split}/)
  with the columns image (struct of bytes and path) and label (int64)"""

# Footers of hub tables hold some 10 kB.
_MOST_TABLES = 64


class ParquetSource:
    """Labelled rows of parquet files.

    Args:
        files: Paths.
        arrays: `labels`, and the place of each row: `table`, `group`, `row` within the group.
    """

    cure = "copy or download the file again and compare its size with the source"

    def __init__(self, files: Sequence[Path], arrays: Arrays) -> None:
        self._files = [str(path) for path in files]
        self.labels = arrays["labels"]
        self.group = arrays["group"]
        self._file, self._row = arrays["table"], arrays["row"]
        self._first = np.searchsorted(self._file, np.arange(len(files)))
        self._tables: dict[int, pq.ParquetFile] = {}
        self._last: tuple[tuple[int, int, str], pa.Array] | None = None
        self._owner = os.getpid()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The file, and the row's number in it."""
        file = self._file[index]
        return f"{self._files[file]}/row {index - int(self._first[file])}"

    def file_name(self, index: int) -> str:
        """What the table calls the image, in its column `image.path`; perhaps nothing."""
        return os.path.basename(self._column(index, "path")[int(self._row[index])].as_py() or "")

    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            SuiteError: The table is damaged, or the row has no image.
        """
        data = self._column(index, "bytes")[int(self._row[index])].as_py()
        if not data:
            raise SuiteError(
                expected="an image in the column image.bytes",
                found="an empty entry",
                where=self.name(index),
                cure="take the version of the table that embeds the images, not their paths",
            )
        return bytes(data)

    def _column(self, index: int, field: str) -> "pa.Array":
        """A field of the row group of an image; the last one stays in memory."""
        if self._owner != os.getpid():  # Arrow's handles do not survive a fork.
            self._owner, self._tables, self._last = os.getpid(), {}, None
        key = (int(self._file[index]), int(self.group[index]), field)
        if self._last is None or self._last[0] != key:
            try:
                table = self._table(key[0]).read_row_group(
                    key[1], columns=[f"image.{field}"], use_threads=False
                )
            except Exception as error:  # Arrow's errors have no common base but this one.
                raise damaged(self._files[key[0]], error) from error
            self._last = key, table.column("image").combine_chunks().field(field)
        return self._last[1]

    def _table(self, number: int) -> "pq.ParquetFile":
        import pyarrow.parquet as pq

        if number not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.pop(next(iter(self._tables))).close()
            self._tables[number] = pq.ParquetFile(self._files[number])
        return self._tables[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": 0, "_tables": {}, "_last": None}


def is_parquet(root: Path) -> bool:
    """Whether there are tables of validation images."""
    return bool(split_files(root, "val", ".parquet"))


def read_parquet(request: Request) -> LabelledImages:
    """Lists the layout `parquet`."""
    train_files = chosen_files(request, "train", ".parquet", PARQUET_TREE)
    val_files = chosen_files(request, "val", ".parquet", PARQUET_TREE)
    names = _hub_names(train_files[0]) or class_names(
        request.root, train_files, lambda: _index(train_files)["labels"]
    )
    train = ParquetSource(train_files, _index(train_files)) if request.train else nothing()
    return LabelledImages(names, train, ParquetSource(val_files, _index(val_files)))


def damaged(path: str | Path, error: Exception) -> SuiteError:
    """The refusal of a file that Arrow cannot read."""
    lines = str(error).splitlines() or [type(error).__name__]
    return SuiteError(
        expected="a parquet table with the columns image (bytes, path) and label",
        found=f"a file that cannot be read ({lines[0][:160]})",
        where=str(path),
        cure=ParquetSource.cure,
    )


def _index(files: Sequence[Path]) -> Arrays:
    return cached_arrays("parquet_v1", files, lambda: _build(files))


def _build(files: Sequence[Path]) -> Arrays:
    import pyarrow.parquet as pq

    parts: dict[str, list[Any]] = {"labels": [], "table": [], "group": [], "row": []}
    for number, path in enumerate(files):
        try:
            table = pq.ParquetFile(path)
            fields = table.schema_arrow
            if not {"image", "label"} <= set(fields.names):
                raise ValueError(f"columns {', '.join(fields.names)}")
            labels = table.read(columns=["label"], use_threads=False).column("label").to_numpy()
            metadata = table.metadata
            sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        except Exception as error:
            raise damaged(path, error) from error
        parts["labels"].append(labels.astype(np.int64))
        parts["table"].append(np.full(len(labels), number, dtype=np.int32))
        parts["group"].append(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
        parts["row"] += [np.arange(size, dtype=np.int32) for size in sizes]
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _hub_names(path: Path) -> tuple[str, ...]:
    """Class names that the hub keeps in a table's schema; perhaps none."""
    import pyarrow.parquet as pq

    try:
        stored = (pq.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
        names = json.loads(stored)["info"]["features"]["label"]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return ()
    except Exception as error:
        raise damaged(path, error) from error
