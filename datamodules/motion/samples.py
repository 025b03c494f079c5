"""Which pieces of which clips are samples, and what was left out and why.

A clip with captions about the whole of it is one sample; each caption about some seconds is a
sample of its own, named after the clip and the caption's line.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from datamodules.motion.captions import Caption
from datamodules.motion.clip_index import ClipFact
from datamodules.motion.motion_folder import MotionFolder

# Published loaders leave out clips of so many frames or more, and of fewer than so many.
TOO_LONG = 200
TOO_SHORT = {"humanml3d": 40, "kit": 24}


@dataclass(frozen=True)
class Sample:
    """A clip, or some seconds of one.

    Args:
        name: The clip's id; with -<line> for a piece of it.
        clip: The clip's id.
        start: First row.
        stop: Row after the last.
        captions: About these rows.
    """

    name: str
    clip: str
    start: int
    stop: int
    captions: tuple[Caption, ...]


@dataclass
class Left:
    """What is not among the samples of a split.

    Args:
        counts: By reason.
        first: An example of each, by reason.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, what: str) -> None:
        """Counts one."""
        self.counts[reason] += 1
        self.first.setdefault(reason, what)

    def __str__(self) -> str:
        parts = (f"{n:,} {why} (first {self.first[why]})" for why, n in self.counts.items())
        return ", ".join(parts)


def list_samples(
    folder: MotionFolder,
    names: list[str],
    facts: dict[str, ClipFact],
    too_long: int | None = TOO_LONG,
) -> tuple[list[Sample], Left]:
    """Samples of a split in the order of its list, and what is left out.

    Args:
        folder: The data set.
        names: Ids of the split.
        facts: Of these clips.
        too_long: Clips of so many frames or more are left out; null keeps them.
    """
    samples: list[Sample] = []
    left = Left()
    shortest = TOO_SHORT[folder.skeleton.name]
    for name in names:
        fact = facts[name]
        reason = _unfit(fact, shortest, too_long)
        if reason:
            left.add(reason, name)
            continue
        found = folder.captions(name)
        if found is None:
            left.add("clips without a caption file", name)
            continue
        captions, bad = found
        for line in bad:
            left.add("malformed caption lines", f"{name}.txt:{line.number}, {line.why}")
        if not captions:
            left.add("clips without a caption", name)
        samples += _of_clip(folder, name, fact, captions, (shortest, too_long), left)
    return samples, left


def _of_clip(
    folder: MotionFolder,
    name: str,
    fact: ClipFact,
    captions: dict[int, Caption],
    limits: tuple[int, int | None],
    left: Left,
) -> list[Sample]:
    whole = tuple(caption for caption in captions.values() if caption.whole)
    samples = [Sample(name, name, 0, fact.frames, whole)] if whole else []
    for number, caption in captions.items():
        if caption.whole:
            continue
        # Upstream counts 20 frames a second for KIT-ML too, but its captions have no seconds.
        fps = folder.skeleton.fps
        start, stop = (int(seconds * fps) for seconds in (caption.start, caption.stop))
        piece = replace(fact, frames=max(min(stop, fact.frames) - start, 0))
        reason = _unfit(piece, *limits, what="pieces of clips")
        if reason:
            left.add(reason, f"{name}.txt:{number}, {caption.start} to {caption.stop} s")
        else:
            own = f"{name}-{number}"
            samples.append(Sample(own, name, start, start + piece.frames, (caption,)))
    return samples


def _unfit(fact: ClipFact, shortest: int, too_long: int | None, what: str = "clips") -> str:
    """Why a clip is no sample; empty if it is one."""
    if fact.frames == 0:
        return "clips without a file" if what == "clips" else f"{what} outside the clip"
    if not fact.finite:
        return f"{what} with NaN"
    if fact.frames < shortest:
        return f"{what} under {shortest} frames"
    if too_long is not None and fact.frames >= too_long:
        return f"{what} of {too_long} frames or more"
    return ""
