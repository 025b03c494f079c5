"""`shards`: WebDataset archives, read by position instead of as a stream.

A sample is a run of members with one key, `<key>.jpg` and `<key>.cls` (ASCII class index). Where
they lie is looked up once and kept in the cache, so that order, resuming and the cover of an epoch
are as exact as with files. `_info.json` (timm's), where present, says how many there should be.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from blocks.errors import SuiteError
from datamodules.vision.layouts.archive_files import chosen_files, class_names, split_files
from datamodules.vision.layouts.cached_index import Arrays, cached_arrays
from datamodules.vision.layouts.request import LabelledImages, Request, nothing
from datamodules.vision.layouts.tar_source import Member, TarSource, member_arrays, members

INFO = "_info.json"
SHARDS_TREE = f"""
  root/*train*.tar or root/train/*.tar  of <key>.jpg and <key>.cls
  root/*val*.tar or root/val/*.tar
  root/classes.txt  (a class name a line) and root/{INFO}  may be there too"""

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
_LABELS = ("cls", "json")
# A key ends at the first dot of the file's name, as in webdataset/webdataset.
_KEY = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)")


def is_shards(root: Path) -> bool:
    """Whether there are tar archives of validation images."""
    return bool(split_files(root, "val", ".tar"))


def read_shards(request: Request) -> LabelledImages:
    """Lists the layout `shards`."""
    train_files = chosen_files(request, "train", ".tar", SHARDS_TREE)
    val_files = chosen_files(request, "val", ".tar", SHARDS_TREE)
    names = class_names(request.root, train_files, lambda: _index(train_files)["labels"])
    train = _source(request, train_files) if request.train else nothing()
    return LabelledImages(names, train, _source(request, val_files))


def _source(request: Request, files: Sequence[Path]) -> TarSource:
    arrays = _index(files)
    _check_lengths(request, files, arrays)
    return TarSource(files, **arrays)


def _index(files: Sequence[Path]) -> Arrays:
    return cached_arrays("shards_v1", files, lambda: _build(files))


def _build(files: Sequence[Path]) -> Arrays:
    return member_arrays(
        [
            (number, image, label)
            for number, path in enumerate(files)
            for image, label in _read(path)
        ]
    )


def _read(path: Path) -> Iterator[tuple[Member, int]]:
    """Image and label of each sample of a shard."""
    parts = [
        (match[1], match[2].lower(), member)
        for member in members(path)
        if (match := _KEY.fullmatch(member.name)) and not match[1].startswith("__")
    ]
    with path.open("rb") as file:
        for key, group in groupby(parts, key=lambda part: part[0]):
            sample = {extension: member for _, extension, member in group}
            image = next((sample[name] for name in _IMAGES if name in sample), None)
            source = next((sample[name] for name in _LABELS if name in sample), None)
            if image is None or source is None:
                raise _wrong(path, key, f"members {', '.join(sample) or 'none'}")
            yield image, _label(path, key, file, source)


def _label(path: Path, key: str, file: IO[bytes], source: Member) -> int:
    file.seek(source.offset)
    text = file.read(source.size)
    try:
        if source.name.lower().endswith(".json"):
            return int(json.loads(text)["label"])
        return int(text)
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong(path, key, f"the label {text[:60]!r}") from error


def _wrong(path: Path, key: str, found: str) -> SuiteError:
    return SuiteError(
        expected=f"an image ({', '.join(_IMAGES)}) and its class index (cls, or label in json)",
        found=found,
        where=f"{path}, sample {key}",
        cure="write the shards anew: bimamba data convert makes them from any other layout",
    )


def _check_lengths(request: Request, files: Sequence[Path], arrays: Arrays) -> None:
    """Compares the shards with `_info.json`: an archive may be cut between two samples."""
    info = request.root / INFO
    if not info.is_file():
        return
    expected: dict[str, int] = {}
    try:
        splits: Any = json.loads(info.read_text("utf-8"))["splits"]
        for split in splits.values():
            expected |= zip(split["filenames"], split["shard_lengths"], strict=True)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        error_text = f"a file that cannot be used ({type(error).__name__}: {error})"
        request.complain(
            SuiteError(
                expected="splits with filenames and shard_lengths",
                found=error_text,
                where=str(info),
                cure="download it again, or remove it",
            )
        )
        return
    counts = [0] * len(files)
    for number in arrays["archive"].tolist():
        counts[number] += 1
    for path, count in zip(files, counts, strict=True):
        if count != expected.get(path.name, count):
            request.complain(
                SuiteError(
                    expected=f"{expected[path.name]} samples, says {INFO}",
                    found=f"{count}",
                    where=str(path),
                    cure=TarSource.cure,
                )
            )
