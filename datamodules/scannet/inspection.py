"""What labelled clouds say about themselves: facts, and what is wrong with them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.inspection import Progress, Remark, remark_of
from datamodules.sampling import Reader
from datamodules.scannet.classes import CLASS_IDS, CLASSES, IGNORE, STUFF
from datamodules.scannet.sv_layout import Split
from datamodules.scannet.transforms import pixels_of

Array = npt.NDArray[Any]
Level = Literal["error", "warning", "note"]

_GLANCE = 64
_SHOWN = 8
# Metres: a larger room is in other units; so is a smaller one.
_SMALLEST, _LARGEST = 0.3, 40.0
_MIN_POINTS = 100


def describe_samples(readers: Mapping[Split, Reader]) -> dict[str, str | int | float]:
    """Facts in the order in which they should be read, from 64 samples of each split.

    Args:
        readers: Raw samples by split.
    """
    facts: dict[str, str | int | float] = {}
    for split, reader in readers.items():
        facts[f"{split} samples"] = len(reader)
        looks = [sample_figures(reader[k]) for k in _spread(len(reader), _GLANCE)]
        if not looks:
            continue
        for name in ("points", "instances", "superpoints"):
            values = [look[name] for look in looks]
            facts[f"{split} {name}"] = _range(values)
        for name, label in (
            ("labelled", "points with a label"),
            ("in_view", "points in their image"),
            ("purity", "superpoint purity"),
        ):
            facts[f"{split} {label}"] = f"{np.mean([look[name] for look in looks]):.2%}"
        wanted = sum(look["wanted"] for look in looks)
        reached = sum(look["reached"] for look in looks)
        facts[f"{split} instances superpoints can reach at IoU 0.5"] = (
            f"{reached / max(wanted, 1):.1%} of {wanted:,} with {_MIN_POINTS} points or more"
        )
        classes: Counter[int] = sum((look["classes"] for look in looks), Counter())
        most = ", ".join(f"{CLASSES[c].name} {n:,}" for c, n in classes.most_common(_SHOWN))
        facts[f"{split} classes"] = f"{len(classes)} of {len(CLASSES)}; points of {most}"
        groups = Counter(CLASSES[c].group for c in classes if c not in STUFF)
        facts[f"{split} classes with instances"] = ", ".join(
            f"{groups[group]} {group}" for group in ("head", "common", "tail")
        )
    return facts


def sample_figures(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one raw sample.

    Returns:
        points, instances of things, superpoints; labelled, in_view and purity in 0..1; wanted:
        instances of at least 100 points; reached: those of them that whole superpoints cover with
        an overlap above 0.5; classes: points by class.
    """
    instance, semantic, superpoint = (raw[k] for k in ("instance", "semantic", "superpoint"))
    thing = (instance >= 0) & ~np.isin(semantic, (*STUFF, IGNORE))
    owner = np.where(thing, instance, -1)
    ids, place, sizes = np.unique(owner, return_inverse=True, return_counts=True)
    groups, group = np.unique(superpoint, return_inverse=True)
    table = np.bincount(group * len(ids) + place, minlength=len(groups) * len(ids))
    table = table.reshape(len(groups), len(ids))
    members = table.sum(1)
    whole = (2 * table > members[:, None]) * members[:, None]
    shared = (table * (whole > 0)).sum(0)
    overlap = shared / np.maximum(sizes + whole.sum(0) - shared, 1)
    wanted = (ids >= 0) & (sizes >= _MIN_POINTS)
    valid = raw["uv_valid"] if "uv_valid" in raw else pixels_of(dict(raw))[1].numpy()
    values, counts = np.unique(semantic[semantic != IGNORE], return_counts=True)
    return {
        "points": len(instance),
        "instances": int((ids >= 0).sum()),
        "superpoints": len(groups),
        "labelled": float((semantic != IGNORE).mean()),
        "in_view": float(valid.mean()),
        "purity": float(table.max(1).sum() / len(instance)),
        "wanted": int(wanted.sum()),
        "reached": int((wanted & (overlap > 0.5)).sum()),
        "classes": Counter(dict(zip(values.tolist(), counts.tolist(), strict=True))),
    }


def validate_samples(
    opened: Callable[[Split], Reader], sample: int | None, one_frame: bool
) -> Iterator[Remark | Progress]:
    """Reads samples and yields what is wrong, as it is found; common oddities once for a split.

    Args:
        opened: Opens a split; may raise. A raw sample may have `semantic_id`, the labels before
            they became classes, and `raw_superpoint`, the numbers in the file.
        sample: Samples of each split to read at most; null reads all.
        one_frame: Whether a sample is one frame, whose points all lie in its image.
    """
    readers: dict[Split, Reader] = {}
    for split in ("train", "val"):
        try:
            readers[split] = opened(split)
        except SuiteError as error:
            yield remark_of(error)
    chosen = {split: _spread(len(reader), sample) for split, reader in readers.items()}
    total, done = sum(map(len, chosen.values())), 0
    for split, reader in readers.items():
        found: Counter[str] = Counter()
        where: dict[str, list[str]] = {}
        unknown: Counter[int] = Counter()
        for index in chosen[split]:
            try:
                raw = reader[index]
            except SuiteError as error:
                yield remark_of(error)
            else:
                for key, amount in oddities(raw, one_frame).items():
                    found[key] += amount
                    where.setdefault(key, []).append(raw["frame"])
                unknown.update(_unknown_ids(raw))
            done += 1
            yield Progress(done, total, "frames" if one_frame else "scenes")
        yield from _remarks(split, found, where)
        if unknown:
            names = ", ".join(f"{i} ({n:,} points)" for i, n in unknown.most_common(_SHOWN))
            yield Remark(
                "note",
                f"label ids of the {len(CLASSES)} classes",
                f"{len(unknown)} others, taken as unlabelled: {names}",
                split,
                "nothing, if these are ScanNet's rare labels; check semantic_mask otherwise",
            )


def oddities(raw: Mapping[str, Any], one_frame: bool) -> dict[str, int]:
    """How often each finding occurs in one raw sample; see `_FINDINGS`."""
    xyz, instance, semantic = raw["xyz"], raw["instance"], raw["semantic"]
    finite = bool(np.isfinite(raw["pose"]).all())
    found = Counter(nan=int((~np.isfinite(xyz)).any(1).sum()), pose=int(not finite))
    if not found["nan"]:
        extent = float(np.ptp(xyz, 0).max())
        found["units"] = int(not _SMALLEST < extent < _LARGEST)
    if one_frame and finite and not found["nan"]:
        share = float(pixels_of(dict(raw))[1].double().mean())
        found["outside"] = int(share < 0.99)
    found["dark"] = int(raw["rgb"].max(initial=0) <= 1)
    labelled = semantic != IGNORE
    things = labelled & (instance >= 0) & ~np.isin(semantic, STUFF)
    found["ignored"] = int(not labelled.any())
    found["empty"] = int(labelled.any() and not things.any())
    pairs = np.unique(np.stack((instance[things], semantic[things])), axis=1)
    found["classes"] = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    numbers = raw.get("raw_superpoint", raw["superpoint"])
    distinct = len(np.unique(numbers))
    found["gaps"] = int(numbers.min() != 0 or numbers.max() + 1 != distinct)
    found["one"] = int(distinct < 2)
    return {key: amount for key, amount in found.items() if amount}


# Level, expected, unit of what is counted, cure.
_FINDINGS: dict[str, tuple[Level, str, str, str]] = {
    "nan": (
        "error", "finite coordinates", "points that are not",
        "prepare these samples again; NaN points make the whole loss NaN",
    ),
    "pose": (
        "warning", "a finite pose of every frame", "frames without",
        "nothing: they are left out, as upstream leaves them out; tracking was lost there",
    ),
    "units": (
        "warning", f"rooms of {_SMALLEST} to {_LARGEST:g} m", "samples larger or smaller",
        "check that points are in metres",
    ),
    "outside": (
        "error", "99 % of a frame's points inside its image", "frames with fewer",
        "check the poses (camera to world, less the frame's mean point) and the units: images "
        "would be read at wrong places",
    ),
    "dark": (
        "warning", "colours of 0 to 255", "samples that are black or of 0 to 1",
        "multiply by 255, or set data.init_args.color: false",
    ),
    "ignored": (
        "warning", "labels", "samples without any label of the 200 classes",
        "check the label files of these samples: they teach nothing and score nothing",
    ),
    "empty": (
        "note", "instances", "samples without an instance",
        "nothing: they stay, for masks found in them are wrong",
    ),
    "classes": (
        "warning", "one class for each instance", "instances with several",
        "check that both masks come from one preparation; each part counts as an instance",
    ),
    "gaps": (
        "warning", "superpoints 0, 1, ... without gaps", "samples with other numbers",
        "nothing: they are numbered anew; upstream programs would fail on them",
    ),
    "one": (
        "error", "several superpoints in a sample", "samples with one",
        "make superpoints again: nothing can be told apart in these samples",
    ),
}  # fmt: skip


def _remarks(
    split: str, found: Mapping[str, int], where: Mapping[str, list[str]]
) -> Iterator[Remark]:
    for key, amount in found.items():
        level, expected, unit, cure = _FINDINGS[key]
        names = where[key]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        place = f"{split}: {', '.join(names[:_SHOWN])}{more}"
        yield Remark(level, expected, f"{amount:,} {unit}", place, cure)


def _unknown_ids(raw: Mapping[str, Any]) -> dict[int, int]:
    ids = raw.get("semantic_id")
    if ids is None:
        return {}
    values, counts = np.unique(ids[~np.isin(ids, (0, *CLASS_IDS))], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _range(values: list[int]) -> str:
    return f"{min(values):,} to {max(values):,}, median {int(np.median(values)):,}"


def _spread(size: int, number: int | None) -> list[int]:
    """Indices spread evenly over a split, `number` of them at most."""
    if number is None or number >= size:
        return list(range(size))
    return np.linspace(0, size - 1, number).round().astype(int).tolist()  # type: ignore[no-any-return]
