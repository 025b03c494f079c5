"""What a motion data set says about itself: facts, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
import torch

from blocks.errors import SuiteError
from blocks.geometry.motion_features import recover_joints, wrapped_frames
from datamodules.inspection import Progress, Remark, remark_of
from datamodules.motion.captions import vocabulary
from datamodules.motion.clip_index import clip_fact, clip_facts
from datamodules.motion.motion_folder import SPLITS, EvaluatorStatistics, MotionFolder
from datamodules.motion.samples import Left, Sample
from datamodules.motion.statistics import Moments
from datamodules.motion.statistics_check import compare_moments, compare_with_evaluator

Level = Literal["error", "warning", "note"]
_DRIFT = 1e-3  # Metres between stored and recovered joints; the published ones agree within 1e-5.
_HEIGHTS = (0.4, 1.4)  # Metres: where people carry their pelvis, on the average over a data set.
_BINS = (0, 40, 60, 80, 100, 120, 140, 160, 180, 200)


def describe_motion(
    folder: MotionFolder,
    listed: Callable[[str], tuple[list[Sample], Left]],
    statistics: EvaluatorStatistics,
    synthetic: bool,
) -> Mapping[str, str | int | float]:
    """Facts in the order in which they should be read.

    Args:
        folder: The data set.
        listed: Samples of a split, and what is left out.
        statistics: Of evaluators.
        synthetic: Whether it is the embedded set.
    """
    skeleton = folder.skeleton
    facts: dict[str, str | int | float] = {
        "root": str(folder.root) + (" (embedded, synthetic)" if synthetic else ""),
        "skeleton": f"{skeleton.name}, {skeleton.num_joints} joints, {skeleton.num_features} "
        f"features, {skeleton.fps:g} frames a second",
        "features": f"mode {folder.mode}",
        "evaluator statistics": statistics.source,
        "contact files": len(list((folder.root / "contacts").glob("*.npz"))),
    }
    lengths: list[int] = []
    for split in SPLITS:
        names = folder.names(split)
        facts[f"{split} clips"] = len(names)
        if not names:
            continue
        samples, left = listed(split)
        texts = [caption.text for sample in samples for caption in sample.captions]
        mirrored = sum(name.startswith("M") for name in names)
        facts[f"{split} mirrored"] = mirrored
        facts[f"{split} samples"] = len(samples)
        facts[f"{split} captions"] = f"{len(texts):,}, {len(set(texts)):,} different"
        facts[f"{split} words"] = len(vocabulary(texts))
        facts[f"{split} left out"] = str(left) or "nothing"
        known = clip_facts(folder, names)
        frames = sum(fact.frames for fact in known.values())
        facts[f"{split} hours"] = round(frames / skeleton.fps / 3600, 2)
        lengths += [sample.stop - sample.start for sample in samples]
    counts, _ = np.histogram(np.minimum(lengths, _BINS[-1]), (*_BINS, np.inf))
    ends = (*map(str, _BINS[1:]), "")
    facts["frames of a sample"] = ", ".join(
        f"{low}-{high}: {count:,}"
        for low, high, count in zip(_BINS, ends, counts.tolist(), strict=True)
        if count
    )
    return facts


def validate_motion(
    opened: Callable[[], MotionFolder],
    listed: Callable[[MotionFolder, str], Left],
    statistics: Callable[[MotionFolder], EvaluatorStatistics],
    sample: int | None,
) -> Iterator[Remark | Progress]:
    """Yields what is wrong, split by split.

    Args:
        opened: Opens the data set; may raise.
        listed: What is left out of a split.
        statistics: Of evaluators; may raise.
        sample: Clips of each split to read at most; null reads all.
    """
    try:
        folder = opened()
        yield from compare_with_evaluator(folder, statistics(folder))
    except SuiteError as error:
        yield remark_of(error)
        return
    yield from _on_lists(folder)
    moments = Moments(folder.skeleton)
    names = {split: folder.names(split) for split in SPLITS}
    chosen = {split: _some(members, sample) for split, members in names.items()}
    total = sum(map(len, chosen.values()))
    done = 0
    for split, members in chosen.items():
        found = _Findings(folder, split, len(members))
        for name in members:
            done += 1
            yield Progress(done, total, "clips")
            try:
                found.look(name, moments if split == "train" else None)
            except SuiteError as error:
                yield remark_of(error)
        if names[split]:
            yield from found.remarks()
            yield from _on_captions(folder, split, listed)
    yield from compare_moments(folder, moments)


class _Findings:
    """What is odd about the clips of a split."""

    def __init__(self, folder: MotionFolder, split: str, total: int) -> None:
        self.folder, self.split, self.total = folder, split, total
        self.names: dict[str, list[str]] = {}
        self.heights: list[float] = []

    def look(self, name: str, moments: Moments | None) -> None:
        """Reads a clip."""
        skeleton = self.folder.skeleton
        fact = clip_fact(self.folder, name)
        if fact.frames == 0 or not fact.finite:
            self._add("missing" if fact.frames == 0 else "nan", name)
            return
        features = torch.from_numpy(self.folder.features(name))
        if moments is not None:
            moments.add(features)
        if wrapped_frames(features, skeleton).any():
            self._add("wrapped", name)
        self.heights.append(float(features[:, 3].mean()) / skeleton.metre)
        joints = self.folder.joints(name)
        if joints is None:
            self._add("no_joints", name)
            return
        recovered = recover_joints(features.double(), skeleton).numpy()
        same = joints.shape == recovered.shape
        if not same or not np.abs(joints - recovered).max() <= _DRIFT * skeleton.metre:
            self._add("other_joints", name)

    def remarks(self) -> Iterator[Remark]:
        """What was found, one remark a kind, with the names of the first clips."""
        for kind, names in self.names.items():
            level, expected, unit, cure = _CLIPS[kind]
            if kind == "wrapped" and self.folder.mode == "repaired":
                level, cure = "error", "this is not `repaired` data: correct meta.json"
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            found = f"{len(names):,} of {self.total:,} clips {unit}: {shown}"
            yield Remark(level, expected, found, f"{self.split}.txt", cure)
        if self.heights:
            height = float(np.median(self.heights))
            if not _HEIGHTS[0] < height < _HEIGHTS[1]:
                yield Remark(
                    "warning",
                    f"roots at {_HEIGHTS[0]} to {_HEIGHTS[1]} m above the ground",
                    f"{height:.3g} m in the median",
                    self.split,
                    "check the unit of the joints: metres in HumanML3D, about 1/600 m in KIT-ML",
                )

    def _add(self, kind: str, name: str) -> None:
        self.names.setdefault(kind, []).append(name)


# Level, expected, what the clips are, cure.
_CLIPS: dict[str, tuple[Level, str, str, str]] = {
    "missing": (
        "warning", "a file in new_joint_vecs for every name", "have none",
        "complete the data set; in KIT-ML's published lists some are missing, and left out",
    ),
    "nan": (
        "warning", "numbers", "have NaN or infinity, and are left out",
        "bimamba data repair writes a copy without them",
    ),
    "wrapped": (
        "warning", "turns that agree with places and velocities",
        "are turned wrongly after a heading crossed 180 degrees",
        "bimamba data repair writes a corrected copy",
    ),
    "no_joints": (
        "note", "joints in new_joints for every clip", "have none",
        "nothing needs them for training; bimamba data repair writes them",
    ),
    "other_joints": (
        "warning", f"joints as recovered from the features, within {_DRIFT} m", "differ",
        "bimamba data repair writes new_joints from the features",
    ),
}  # fmt: skip


def _on_lists(folder: MotionFolder) -> Iterator[Remark]:
    """What the lists of names alone tell."""
    home: dict[str, str] = {}
    for split in SPLITS:
        names = folder.names(split)
        if not names:
            yield Remark(
                "error" if split == "train" else "warning",
                f"names in {split}.txt",
                "none",
                str(folder.root / f"{split}.txt"),
                "complete the data set",
            )
        twice = [name for name, count in Counter(names).items() if count > 1]
        shared = [name for name in names if home.get(name, split) != split]
        # The mirror of a training clip is a training clip in disguise.
        twins = [n for n in names if home.get(_twin(n), split) != split and n not in shared]
        for found, what in (
            (twice, "several times"), (shared, "in another split, too"),
            (twins, "with their mirrored twin in another split"),
        ):  # fmt: skip
            if found:
                yield Remark(
                    "warning" if found is twice else "error",
                    "every clip, and its mirrored twin, in one split",
                    f"{len(found):,} {what}, first {found[0]}",
                    f"{split}.txt",
                    "correct the lists; scores on clips of the training set mean nothing",
                )
        home.update(dict.fromkeys(names, split))


def _on_captions(
    folder: MotionFolder, split: str, listed: Callable[[MotionFolder, str], Left]
) -> Iterator[Remark]:
    try:
        left = listed(folder, split)
    except SuiteError as error:
        yield remark_of(error)
        return
    for reason, count in left.counts.items():
        if reason.startswith(("clips without a file", "clips with NaN")):
            continue  # Said of the clips above.
        ordinary = " frames" in reason
        yield Remark(
            "note" if ordinary else "warning",
            "clips and captions that can be samples",
            f"{count:,} {reason}, left out",
            f"{split}, first {left.first[reason]}",
            "they are left out by the published rules, too" if ordinary else "correct them",
        )


def _twin(name: str) -> str:
    return name[1:] if name.startswith("M") else f"M{name}"


def _some(names: list[str], sample: int | None) -> list[str]:
    """So many names at most, drawn evenly."""
    count = min(len(names), sample or len(names))
    places = np.linspace(0, len(names) - 1, count).round().astype(int).tolist() if count else []
    return [names[place] for place in places]
