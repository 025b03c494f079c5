"""What a pose data set says about itself: facts, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np

from blocks.errors import SuiteError
from datamodules.inspection import Progress, Remark, remark_of
from datamodules.pose.clips import Indices, uncovered
from datamodules.pose.database import PoseSplit, Video

# Of Human3.6M's frames about 2.4 to 6; MPI-INF-3DHP has none.
_FACTORS = (1.0, 15.0)
# A person at the edge of the image is nothing to tell; a wrong size or unit is.
_FEW_OUTSIDE, _MANY_OUTSIDE = 0.001, 0.05
_DRIFT_MM = 0.1


def describe_poses(
    splits: Mapping[str, PoseSplit], clips: tuple[Indices, Indices], num_frames: int
) -> dict[str, str | int | float]:
    """Facts in the order in which they should be read.

    Args:
        splits: By name, train and test.
        clips: Of each split.
        num_frames: Frames of a clip.
    """
    facts: dict[str, str | int | float] = {}
    for (name, split), cut in zip(splits.items(), clips, strict=True):
        facts[f"{name} videos"] = len(split.videos)
        facts[f"{name} frames"] = len(split)
        lengths = sorted(len(video) for video in split.videos) or [0]
        facts[f"{name} frames of a video"] = (
            f"{lengths[0]:,} to {lengths[-1]:,}, median {lengths[len(lengths) // 2]:,}"
        )
        facts[f"{name} subjects"] = _counts(split, _subject)
        facts[f"{name} groups"] = _counts(split, lambda video: video.group)
        facts[f"{name} cameras"] = _counts(split, lambda video: video.camera)
        facts[f"{name} clips of {num_frames}"] = len(cut)
        facts[f"{name} frames in no clip"] = uncovered(len(split), cut)
        facts[f"{name} confidence"] = "missing, 1 instead" if split.confidence is None else "given"
        if split.valid is not None:
            facts[f"{name} frames scored"] = int((split.valid[:] > 0).sum())
    return facts


def validate_poses(
    opened: Callable[[], tuple[PoseSplit, PoseSplit]],
    num_frames: int,
    sample: int | None,
    detected: bool = True,
) -> Iterator[Remark | Progress]:
    """Yields what is wrong with the frames, split by split.

    Args:
        opened: Opens both splits; may raise.
        num_frames: Frames of a clip.
        sample: Videos of each split to read at most; null reads all.
        detected: Whether 2-D joints come from a detector, which should give confidences.
    """
    try:
        splits = opened()
    except SuiteError as error:
        yield remark_of(error)
        return
    counts = [min(len(split.videos), sample or len(split.videos)) for split in splits]
    done = 0
    for name, split, count in zip(("train", "test"), splits, counts, strict=True):
        yield from _on_lists(name, split, num_frames, detected)
        chosen = np.linspace(0, len(split.videos) - 1, count).round().astype(int).tolist()
        found: Counter[str] = Counter()
        first: dict[str, str] = {}
        for number in chosen:
            video = split.videos[number]
            for key, hits in _look(split, video).items():
                if hits:
                    found[key] += hits
                    first.setdefault(key, video.name)
            done += 1
            yield Progress(done, sum(counts), "videos")
        for key, hits in found.items():
            level, expected, unit, cure = _FINDINGS[key]
            many = hits / max(sum(len(split.videos[n]) for n in chosen) * 17, 1)
            if key == "outside" and many < _FEW_OUTSIDE:
                continue
            if key == "outside" and many < _MANY_OUTSIDE:
                level = "note"
            yield Remark(
                level,
                expected,
                f"{hits:,} {unit}",
                f"{name}, first in {first[key]}",
                cure,
            )


# Level, expected, unit of what is counted, cure.
_FINDINGS: dict[str, tuple[Literal["error", "warning", "note"], str, str, str]] = {
    "nan": (
        "error", "numbers", "values that are NaN or infinite",
        "interpolate or leave out these frames; they turn the whole loss into NaN",
    ),
    "outside": (
        "warning", "joints inside the image", "joints outside it",
        "check that keypoints are pixels of the full image, and that the camera's name is right",
    ),
    "confidence": (
        "warning", "confidences from 0 to 1", "confidences outside",
        "divide by the detector's highest score",
    ),
    "factor": (
        "error", f"factors of {_FACTORS[0]:g} to {_FACTORS[1]:g} mm per pixel", "frames outside",
        "check the unit of the camera-space poses they were made from: millimetres",
    ),
    "product": (
        "warning", "joints_2.5d_image equal to joint3d_image * 2.5d_factor", "frames that differ",
        "use the original database; scores on this one compare with no other",
    ),
    "still": (
        "warning", "a person who moves", "videos that stand still",
        "look at them: a frozen detector teaches nothing",
    ),
}  # fmt: skip


def _on_lists(name: str, split: PoseSplit, num_frames: int, detected: bool) -> Iterator[Remark]:
    """What the list of videos alone tells."""
    if not split.videos:
        yield Remark("error", "videos", "none", name, "give the whole data set")
        return
    short = [video for video in split.videos if len(video) < num_frames]
    if short:
        yield Remark(
            "warning",
            f"videos of at least {num_frames} frames",
            f"{len(short):,} of {len(split.videos):,} shorter, down to "
            f"{min(len(video) for video in short)} frames",
            f"{name}, first {short[0].name}",
            "lower data.init_args.num_frames; short videos are stretched by repeating frames",
        )
    twice = [key for key, hits in Counter(v.name for v in split.videos).items() if hits > 1]
    if twice:
        yield Remark(
            "warning",
            "the frames of a video in one stretch",
            f"{len(twice)} names in several places, such as {twice[0]}",
            name,
            "sort the frames by their source; clips are cut from each stretch alone",
        )
    if split.confidence is None and detected:
        yield Remark(
            "note",
            "the detector's confidence of each joint",
            "none",
            name,
            "1 is used for all; a detector's own confidence improves P1",
        )


def _look(split: PoseSplit, video: Video) -> dict[str, int]:
    """How often each finding occurs in one video."""
    part = slice(video.start, video.stop)
    keypoints, pose = split.keypoints[part], split.pose[part]
    found = Counter(nan=int((~np.isfinite(keypoints)).sum() + (~np.isfinite(pose)).sum()))
    inside = (keypoints >= 0) & (keypoints < (video.width, video.height))
    found["outside"] = int((~inside).any(-1).sum())
    found["still"] = int(len(video) > 1 and bool((keypoints == keypoints[:1]).all()))
    if split.confidence is not None:
        confidence = split.confidence[part]
        found["nan"] += int((~np.isfinite(confidence)).sum())
        found["confidence"] = int(((confidence < 0) | (confidence > 1)).sum())
    if split.factor is not None:
        factor = split.factor[part]
        found["factor"] = int((~((factor > _FACTORS[0]) & (factor < _FACTORS[1]))).sum())
        if split.target is not None:
            product = pose * factor[:, None, None]
            wrong = ~np.isclose(split.target[part], product, rtol=1e-4, atol=_DRIFT_MM)
            found["product"] = int(wrong.any((1, 2)).sum())
    return found


def _subject(video: Video) -> str:
    """s_09 of s_09_act_05_..., S1 of S1 Seq2 ..., and TS1."""
    return video.name.partition("_act_")[0].partition(" ")[0]


def _counts(split: PoseSplit, key: Callable[[Video], str]) -> str:
    """Frames by a property of their video: `S1 1,234, S5 2,345`."""
    frames: Counter[str] = Counter()
    for video in split.videos:
        frames[key(video)] += len(video)
    return ", ".join(f"{name} {count:,}" for name, count in sorted(frames.items()))
