"""What is wrong with a retrieval set: told by its lists alone, and by the content of its files."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from blocks.errors import SuiteError
from datamodules.inspection import Progress, Remark, remark_of
from datamodules.vision.image_reader import open_rgb
from datamodules.vision.imagenet_labels import some
from datamodules.vision.retrieval.records import SPLITS, Listing, Record

_PROGRESS_EVERY = 200


def refuse(listing: Listing, train: bool) -> None:
    """Raises what makes a set unfit.

    Args:
        listing: The set.
        train: Whether it is to be trained on, not only evaluated.

    Raises:
        SuiteError: A split is empty, or no query has a match.
    """
    for split in SPLITS:
        if (train or split != "train") and not listing.of(split):
            raise SuiteError(
                expected=f"{split} images in the layout {listing.layout}",
                found="none",
                where=str(listing.home),
                cure="complete the data set" + (", or evaluate only" if split == "train" else ""),
            )
    absent, own_camera = unmatched(listing)
    queries = listing.of("query")
    if len(absent) + len(own_camera) < len(queries):
        return
    only_camera = not absent
    raise SuiteError(
        expected="queries whose identity the gallery shows"
        + (" from another camera" if listing.protocol == "cmc_camera" else ""),
        found=f"none of {len(queries)}: {len(absent)} of an identity that the gallery lacks, "
        f"{len(own_camera)} of one it shows from the query's own camera alone"
        f"\n{_counts(listing)}",
        where=str(listing.home),
        cure="correct the cameras (data.init_args.camera_pattern, or the column camera); without "
        "camera information leave them out, then no match is removed"
        if only_camera
        else "name an identity alike in queries and gallery",
    )


def unmatched(listing: Listing) -> tuple[list[Record], list[Record]]:
    """Queries without a match: of identities the gallery lacks; of their own camera alone."""
    seen: dict[int, set[int]] = defaultdict(set)
    for record in listing.of("gallery"):
        seen[record.identity].add(record.camera)
    queries = listing.of("query")
    absent = [q for q in queries if q.identity not in seen]
    if listing.protocol != "cmc_camera":
        return absent, []
    return absent, [q for q in queries if q.identity in seen and seen[q.identity] == {q.camera}]


def remarks_on(listing: Listing, instances: int) -> Iterator[Remark]:
    """Remarks that need no image.

    Args:
        listing: The set.
        instances: Images of each identity in a training batch.
    """
    yield from listing.remarks
    try:
        refuse(listing, train=True)
    except SuiteError as error:
        yield remark_of(error)
    else:
        yield from _without_match(listing)
    yield from _cameras(listing)
    yield from _identities(listing, instances)
    yield from _paths(listing)


def remarks_on_files(listing: Listing, sample: int | None) -> Iterator[Remark | Progress]:
    """Remarks on the content of the files: unreadable, or the same under several names.

    Args:
        listing: The set.
        sample: How many to read at most, drawn evenly; null for all.
    """
    records: Sequence[Record] = listing.records
    if sample is not None and sample < len(records):
        records = [records[i] for i in np.linspace(0, len(records) - 1, sample).astype(int)]
    first: dict[bytes, Record] = {}
    twins: dict[str, list[tuple[Record, Record]]] = defaultdict(list)
    for done, record in enumerate(records, start=1):
        try:
            open_rgb(record.path)
            with open(record.path, "rb") as file:
                digest = hashlib.sha256(file.read()).digest()
        except SuiteError as error:
            yield remark_of(error)
            continue
        earlier = first.setdefault(digest, record)
        if earlier.path != record.path:
            twins[_relation(earlier, record)].append((earlier, record))
        if done % _PROGRESS_EVERY == 0 or done == len(records):
            yield Progress(done, len(records), "images")
    for relation, pairs in twins.items():
        level, expected, found, cure = _TWINS[relation]
        where = " and ".join(record.path for record in pairs[0])
        yield Remark(level, expected, f"{len(pairs)} {found}", f"first {where}", cure)


def _relation(one: Record, other: Record) -> str:
    if "train" in {one.split, other.split} and one.split != other.split:
        return "leak"
    if one.identity != other.identity:
        return "two identities"
    return "copy" if one.split == other.split else "query in gallery"


# Level, what is expected, what was found, the cure.
_TWINS: dict[str, tuple[Literal["error", "warning", "note"], str, str, str]] = {
    "leak": (
        "error",
        "evaluation images that were never trained on",
        "of the same content in training and evaluation",
        "remove them from one of the two, or the figures flatter",
    ),
    "two identities": (
        "error",
        "one identity for each image",
        "of the same content under two identities",
        "keep the right one",
    ),
    "query in gallery": (
        "warning",
        "gallery images other than the queries",
        "of the same content among queries and gallery",
        "remove them from the gallery: such a match is no achievement",
    ),
    "copy": (
        "note",
        "images that differ",
        "copies within a split",
        "remove them, if they are not meant to count twice",
    ),
}


def _without_match(listing: Listing) -> Iterator[Remark]:
    absent, own_camera = unmatched(listing)
    counted = listing.protocol == "trapezoid"
    for queries, found in (
        (absent, "queries of an identity that the gallery lacks"),
        (own_camera, "queries of an identity that the gallery shows from their camera alone"),
    ):
        if queries:
            identities = sorted({str(query.identity) for query in queries})
            yield Remark(
                "warning",
                "a match in the gallery for every query",
                f"{len(queries)} {found}: {some(identities)}",
                f"first {queries[0].path}",
                "complete the gallery; the protocol counts them as 0"
                if counted
                else "complete the gallery; the protocol passes over them",
            )


def _cameras(listing: Listing) -> Iterator[Remark]:
    for split in SPLITS:
        cameras = Counter(record.camera for record in listing.of(split))
        several = split == "train" or listing.protocol == "trapezoid"
        if len(cameras) == 1 and not several and _tells_cameras(listing):
            yield Remark(
                "warning",
                f"several cameras among the {split} images",
                f"camera {next(iter(cameras))} alone",
                str(listing.home),
                "check the cameras; where there is only one, leave them out",
            )


def _tells_cameras(listing: Listing) -> bool:
    """Not where queries and gallery were given a camera each for want of knowledge."""
    pairs = {(record.split, record.camera) for record in listing.records}
    return not pairs <= {("train", 0), ("query", 0), ("gallery", 1)}


def _identities(listing: Listing, instances: int) -> Iterator[Remark]:
    images = Counter(record.identity for record in listing.of("train"))
    few = [str(identity) for identity, count in sorted(images.items()) if count < instances]
    if few and listing.protocol == "cmc_camera":
        yield Remark(
            "note",
            f"{instances} training images of each identity (data.init_args.instances)",
            f"fewer of {len(few)} identities of {len(images)}: {some(few)}",
            str(listing.home),
            "nothing to do: their images are repeated within a batch",
        )
    views = {record.view for record in listing.of("train")}
    if len(views) > 1:
        seen: dict[int, set[int]] = defaultdict(set)
        for record in listing.of("train"):
            seen[record.identity].add(record.view)
        if partial := [str(identity) for identity in sorted(seen) if seen[identity] != views]:
            yield Remark(
                "warning",
                "training images of every identity in every view",
                f"{len(partial)} of {len(seen)} identities lack a view: {some(partial)}",
                str(listing.home),
                "complete them, or train on fewer views: the order of pairs leaves them out",
            )
    if listing.shared_identities:
        tested = {r.identity for r in listing.records if r.split != "train"}
        if both := [str(identity) for identity in sorted(tested & images.keys())]:
            yield Remark(
                "warning",
                "identities in evaluation that were never trained on",
                f"{len(both)} in both: {some(both)}",
                str(listing.home),
                "split by identity, unless you mean to test known ones",
            )


def _paths(listing: Listing) -> Iterator[Remark]:
    splits: dict[str, list[str]] = defaultdict(list)
    for record in listing.records:
        splits[record.path].append(record.split)
    twice = {path: names for path, names in splits.items() if len(names) > 1}
    leaks = [path for path, names in twice.items() if "train" in names and len(set(names)) > 1]
    if leaks:
        yield Remark(
            "error",
            "evaluation images that were never trained on",
            f"{len(leaks)} files listed for training and evaluation",
            f"first {leaks[0]}",
            "list each in one split",
        )
    if others := [path for path in twice if path not in set(leaks)]:
        yield Remark(
            "warning",
            "each file once",
            f"{len(others)} listed several times",
            f"first {others[0]} ({', '.join(twice[others[0]])})",
            "list each once",
        )


def _counts(listing: Listing) -> str:
    """Images by camera, and identities, of queries and gallery: a line each."""
    lines = []
    for split in SPLITS[1:]:
        records = listing.of(split)
        cameras = sorted(Counter(record.camera for record in records).items())
        by_identity = Counter(record.identity for record in records)
        some_identities = [f"{i}: {n}" for i, n in sorted(by_identity.items())[:5]]
        lines.append(
            f"  {split}: {len(records)} images of {len(by_identity)} identities; by camera "
            f"{', '.join(f'{c}: {n}' for c, n in cameras)}; by identity "
            f"{', '.join(some_identities)}{', ...' if len(by_identity) > 5 else ''}"
        )
    return "\n".join(lines)
