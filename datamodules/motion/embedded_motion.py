"""The embedded motion set: people who act by formulas, in HumanML3D's or KIT-ML's own layout.

Every number is synthetic. Captions say what can be seen in the motion (direction, side, speed,
count), so matching text with motion has a meaning; three captions a clip, and for two actions in a
row the third one is about the second alone, with its seconds. The content is determined by preset
and seed; a mirrored clip stays in the split of its original.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from blocks.geometry.motion_features import (
    Mode,
    extract_features,
    fitted,
    mirror,
    recover_joints,
    target_offsets,
)
from blocks.geometry.motion_skeleton import HUMANML3D, MotionSkeleton
from datamodules.embedded import generate_once
from datamodules.motion.actions import PERIODS, Manner
from datamodules.motion.body import Array, posed, resting
from datamodules.motion.lexicon import mirrored, tagged
from datamodules.motion.performance import Part, perform
from datamodules.motion.phrases import captions, verb_phrases
from datamodules.motion.statistics import Moments
from datamodules.motion.writing import MotionWriter

Preset = Literal["tiny", "small", "base"]
CLIPS: dict[Preset, int] = {"tiny": 256, "small": 2000, "base": 10000}
# Shares of training and validation; the rest is for tests.
_SHARES: dict[Preset, tuple[float, float]] = {
    "tiny": (0.5, 0.25), "small": (0.8, 0.05), "base": (0.8, 0.05),
}  # fmt: skip
_VERSION = 1
_SPEEDS = {"slowly": 0.6, "": 1.0, "quickly": 1.6}
_SIZES = (0.75, 1.0, 1.3)
_TWO_ACTIONS = 0.3
_KINDS = (
    "walk", "run", "circle", "run_circle", "step", "jump", "squat", "sit", "bow", "turn", "wave",
    "raise", "punch", "kick",
)  # fmt: skip
# Who sits stays seated: nothing follows it.
_FINAL = ("sit",)
_EVEN_PACE = ("wave", "raise", "punch", "kick", "jump")


@dataclass(frozen=True)
class Clip:
    """A clip and what it shows.

    Args:
        joints: Places (T, 22, 3), metres.
        lines: Captions with the seconds they are about; (0, 0) is the whole clip.
    """

    joints: Array
    lines: list[tuple[str, float, float]]


def generate_motion(preset: Preset, skeleton: MotionSkeleton = HUMANML3D, seed: int = 0) -> Path:
    """Folder of the embedded set, written on the first call.

    Args:
        preset: Clips, each also mirrored: tiny 256, small 2,000, base 10,000.
        skeleton: HumanML3D's or KIT-ML's.
        seed: Of the whole content.
    """

    def write(folder: Path) -> None:
        write_motion(folder, CLIPS[preset], _SHARES[preset], skeleton, seed)

    name = f"{skeleton.name}_synthetic_{preset}"
    return generate_once(f"{name}_v{_VERSION}" + (f"_seed{seed}" if seed else ""), write)


def write_motion(
    folder: Path,
    clips: int,
    shares: tuple[float, float],
    skeleton: MotionSkeleton = HUMANML3D,
    seed: int = 0,
    mode: Mode = "repaired",
) -> None:
    """Writes an embedded set.

    Args:
        folder: Empty folder.
        clips: How many; each is written a second time, mirrored.
        shares: Of training and of validation.
        skeleton: Whose features to write.
        seed: Of the content.
        mode: How features are extracted.
    """
    writer = MotionWriter(folder, skeleton, mode, source=f"synthetic, seed {seed}")
    moments = Moments(skeleton)
    rest = posed(resting(1), np.zeros(1))[0]
    offsets = target_offsets(converted(torch.from_numpy(rest), skeleton), skeleton)
    names: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    order = np.random.default_rng([seed, clips]).permutation(clips)
    for number in range(clips):
        split = _split(int(order[number]) / clips, shares)
        clip = made(seed, number, skeleton.fps)
        joints = fitted(converted(torch.from_numpy(clip.joints), skeleton), skeleton, offsets)
        for name in (f"{number:06d}", f"M{number:06d}"):
            lines = clip.lines
            if name.startswith("M"):
                joints = mirror(joints, skeleton)
                lines = [(mirrored(text), start, stop) for text, start, stop in lines]
            features = extract_features(joints, skeleton, mode=mode).float()
            writer.write_clip(name, features, recover_joints(features, skeleton))
            writer.write_texts(name, [(text, tagged(text), a, b) for text, a, b in lines])
            names[split].append(name)
            if split == "train":
                moments.add(features)
        _tell(number + 1, clips)
    writer.write_lists(names)
    writer.write_statistics(*moments.result())
    writer.close()


def made(seed: int, number: int, fps: float) -> Clip:
    """One clip.

    Args:
        seed: Of the set.
        number: Of the clip.
        fps: Frames in a second.
    """
    random = np.random.default_rng([seed, number])
    two = random.random() < _TWO_ACTIONS
    # 60 to 192 rows of features at 20 frames a second, and as many seconds at another rate.
    rows = 4 * int(random.integers(28 if two else 15, 49))
    frames = round(rows * fps / 20) + 1
    seconds = rows / 20
    middle = round(seconds / 2 * random.uniform(0.85, 1.15), 1)
    spans = [(0.0, middle), (middle, seconds)] if two else [(0.0, seconds)]
    parts: list[Part] = []
    phrases: list[list[str]] = []
    for place, (start, stop) in enumerate(spans):
        part, ways = _part(random, start, stop - start, last=place == len(spans) - 1)
        while two and place and part.action == parts[0].action:
            part, ways = _part(random, start, stop - start, last=True)
        parts.append(part)
        phrases.append(ways)
    heading = random.uniform(0, 2 * math.pi)
    scale = float(np.clip(random.normal(1, 0.06), 0.85, 1.15))
    joints = perform(parts, frames, fps, heading, scale)
    if not two:
        return Clip(joints, [(text, 0.0, 0.0) for text in captions(phrases, 3, random)])
    lines = [(text, 0.0, 0.0) for text in captions(phrases, 2, random)]
    alone = captions(phrases[1:], 1, random)[0]
    return Clip(joints, [*lines, (alone, middle, seconds)])


def converted(joints: torch.Tensor, skeleton: MotionSkeleton) -> torch.Tensor:
    """Joints (..., 22, 3) in metres as those of another skeleton, in its unit."""
    if skeleton.name != "kit":
        return joints
    # KIT-ML has one more joint in each foot, and fewer in the back.
    order = [0, 3, 9, 12, 15, 17, 19, 21, 16, 18, 20, 2, 5, 8, 11, 11, 1, 4, 7, 10, 10]
    found = joints[..., order, :].clone()
    for ankle, toe in ((13, 15), (18, 20)):
        found[..., toe, :] += 0.4 * (found[..., toe, :] - found[..., ankle, :])
    return found * skeleton.metre


def _part(
    random: np.random.Generator, start: float, seconds: float, last: bool
) -> tuple[Part, list[str]]:
    """An action that fits into some seconds, and ways to say it."""
    kinds = [kind for kind in _KINDS if last or kind not in _FINAL]
    action = str(random.choice(kinds))
    speed = str(random.choice(list(_SPEEDS)))
    if action in _EVEN_PACE:
        speed = ""
    rate = _SPEEDS[speed] * float(np.clip(random.normal(1, 0.07), 0.85, 1.15))
    if action == "jump":
        direction = int(random.choice((0, 1, -1)))
    else:
        direction = int(random.choice((1, -1))) if action == "walk" else 1
    count = 0
    if action in PERIODS:
        # As many as there is time for, and some stillness after them to see that it is over.
        most = int((seconds - 0.7) * rate / PERIODS[action])
        count = int(random.integers(1, min(most, 3) + 1)) if most else 1
        if most > 3 and random.random() < 0.3:
            count = 0
        if not most:
            rate = PERIODS[action] / max(seconds - 0.7, 1.0)
            speed = ""
    angles = [math.pi / 2, math.pi, 2 * math.pi]
    angle = angles[int(random.integers(3))]
    if action == "turn" and 0.3 + 1.8 * max(angle / math.pi, 0.5) / rate > seconds - 0.3:
        angle = math.pi / 2
    manner = Manner(
        rate=rate,
        size=float(random.choice(_SIZES)),
        side=int(random.choice((1, -1))),
        direction=direction,
        count=count,
        angle=angle,
        phase=float(random.uniform(0, 2 * math.pi)),
    )
    return Part(action, manner, start), verb_phrases(action, manner, speed)


def _split(place: float, shares: tuple[float, float]) -> str:
    train, val = shares
    if place < train:
        return "train"
    return "val" if place < train + val else "test"


def _tell(done: int, total: int) -> None:
    """One line on a terminal, rewritten; nothing elsewhere."""
    if sys.stderr.isatty() and (done % 16 == 0 or done == total):
        end = "\n" if done == total else ""
        print(f"\rwriting the embedded motion set: {done}/{total} clips", end=end, file=sys.stderr)
