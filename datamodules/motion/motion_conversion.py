"""Joints of your own, with captions, to a data set in HumanML3D's layout.

    joints/<id>.npy  (T, J, 3)          texts/<id>.txt  captions, one a line
    info.json        fps, unit and up, where they are not the skeleton's, metres and y
    train.txt val.txt test.txt          ids, as you like; 80, 5 and 15 in a hundred without them

A caption line is plain text, or has HumanML3D's four fields. Every clip is fitted to the body of
the first one and also written mirrored, as `M<id>`. A folder that already is a data set is
extracted again from the joints that its features hold, in the mode that is asked for.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.motion_features import (
    Mode,
    extract_features,
    mirror,
    recover_joints,
    repair_heading,
    target_offsets,
)
from blocks.geometry.motion_skeleton import MotionSkeleton
from datamodules.inspection import Progress
from datamodules.motion.captions import Caption, parse_line
from datamodules.motion.lexicon import mirrored, tagged
from datamodules.motion.motion_folder import SPLITS, MotionFolder
from datamodules.motion.statistics import Moments
from datamodules.motion.writing import Line, MotionWriter

_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
# Shares of clips, where the folder has no lists.
_TEST, _VAL = 0.15, 0.05


@dataclass(frozen=True)
class OwnJoints:
    """How the joints of a folder are to be read.

    Args:
        fps: Their frames in a second.
        unit: m, cm or mm.
        up: The axis that points up, y or z.
    """

    fps: float
    unit: Literal["m", "cm", "mm"] = "m"
    up: Literal["y", "z"] = "y"


def is_own_joints(root: Path) -> bool:
    """Whether a folder has joints that are no data set yet."""
    return (root / "joints").is_dir() and not (root / "new_joint_vecs").is_dir()


def convert_joints(
    root: Path, to: Path, skeleton: MotionSkeleton, mode: Mode
) -> Iterator[Path | Progress]:
    """Writes a data set from joints.

    Args:
        root: See the head of the file.
        to: New folder.
        skeleton: Whose joints they are.
        mode: How features are extracted.

    Raises:
        SuiteError: Files are missing, or are no joints of this skeleton.
    """
    own = _info(root, skeleton)
    names = sorted(path.stem for path in (root / "joints").glob("*.npy"))
    if not names:
        raise SuiteError(
            expected=f"files (T, {skeleton.num_joints}, 3) in joints/",
            found="no .npy files",
            where=str(root / "joints"),
            cure="write each clip's joints with numpy.save",
        )
    offsets = target_offsets(_joints(root, names[0], skeleton, own)[0], skeleton)

    def clip(name: str) -> tuple[Tensor, list[Caption]]:
        return _joints(root, name, skeleton, own), _captions(root / "texts" / f"{name}.txt")

    writer = MotionWriter(to, skeleton, mode, f"joints of {root}")
    yield from _write(writer, _lists(root, names), clip, offsets, mirrors=True)


def convert_features(folder: MotionFolder, to: Path, mode: Mode) -> Iterator[Path | Progress]:
    """Writes a data set again in another mode; a clip loses its last frame.

    Args:
        folder: The data set.
        to: New folder.
        mode: How features are extracted.
    """

    def clip(name: str) -> tuple[Tensor, list[Caption]]:
        if not folder.file(name).is_file():
            return torch.empty(0, 0, 3), []
        features = torch.from_numpy(folder.features(name)).double()
        captions, _ = folder.captions(name) or ({}, [])
        joints = recover_joints(repair_heading(features, folder.skeleton), folder.skeleton)
        return joints, list(captions.values())

    names = {split: folder.names(split) for split in SPLITS}
    writer = MotionWriter(to, folder.skeleton, mode, f"{folder.mode} data of {folder.root}")
    yield from _write(writer, names, clip, None, mirrors=False)


def _write(
    writer: MotionWriter,
    lists: dict[str, list[str]],
    clip: Callable[[str], tuple[Tensor, list[Caption]]],
    offsets: Tensor | None,
    mirrors: bool,
) -> Iterator[Path | Progress]:
    skeleton, moments = writer.skeleton, Moments(writer.skeleton)
    kept: dict[str, list[str]] = {split: [] for split in lists}
    left: dict[str, str] = {}
    total, done = sum(map(len, lists.values())), 0
    for split, names in lists.items():
        for name in names:
            done += 1
            yield Progress(done, total, "clips")
            joints, captions = clip(name)
            if len(joints) < 2 or not joints.isfinite().all() or not captions:
                left[name] = "no captions" if not captions else "NaN, or less than two frames"
                continue
            for twin in (False, True)[: 1 + mirrors]:
                own = f"M{name}" if twin else name
                seen = mirror(joints, skeleton) if twin else joints
                features = extract_features(seen, skeleton, offsets, writer.mode).float()
                writer.write_texts(own, [_line(caption, twin) for caption in captions])
                yield writer.write_clip(own, features, recover_joints(features, skeleton))
                kept[split].append(own)
                if split == "train":
                    moments.add(features)
    if not kept["train"]:
        raise SuiteError(
            expected="clips to train on",
            found="; ".join(f"{name}: {why}" for name, why in list(left.items())[:5]) or "none",
            where=str(writer.folder),
            cure="give joints of at least two frames, and captions in texts/<id>.txt",
        )
    writer.write_lists(kept)
    writer.write_statistics(*moments.result())
    writer.notes = {"left_out": left}
    yield writer.close()


def _line(caption: Caption, twin: bool) -> Line:
    text = mirrored(caption.text) if twin else caption.text
    tokens = mirrored(caption.tokens) if twin else caption.tokens
    return text, tokens, caption.start, caption.stop


def _joints(root: Path, name: str, skeleton: MotionSkeleton, own: OwnJoints) -> Tensor:
    file = root / "joints" / f"{name}.npy"
    try:
        array: Any = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SuiteError(
            expected="an array of joints", found=str(error), where=str(file), cure="save it again"
        ) from error
    if array.ndim != 3 or array.shape[1:] != (skeleton.num_joints, 3):
        raise SuiteError(
            expected=f"joints (T, {skeleton.num_joints}, 3) in the order of {skeleton.name}",
            found=f"shape {array.shape}",
            where=str(file),
            cure=f"reorder them: {', '.join(skeleton.joints)}",
        )
    joints = torch.from_numpy(np.asarray(array, np.float64))
    joints = joints * _UNITS[own.unit] * skeleton.metre
    if own.up == "z":
        x, y, z = joints.unbind(-1)
        joints = torch.stack((x, z, -y), -1)
    return resampled(joints, own.fps, skeleton.fps)


def resampled(joints: Tensor, source: float, target: float) -> Tensor:
    """Joints (T, J, 3) at another number of frames a second, by linear interpolation."""
    if source == target or len(joints) < 2:
        return joints
    count = int((len(joints) - 1) / source * target + 1e-6) + 1
    place = torch.arange(count, dtype=torch.float64) * source / target
    before = place.floor().long().clamp_max(len(joints) - 2)
    share = (place - before).to(joints).view(-1, 1, 1)
    return joints[before] * (1 - share) + joints[before + 1] * share


def _captions(file: Path) -> list[Caption]:
    """Lines of plain text, or of four fields."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_bytes().decode("utf-8", "replace").splitlines():
        parsed = parse_line(line) if line.count("#") == 3 else "plain"
        if isinstance(parsed, Caption):
            found.append(parsed)
        elif line.strip():
            text = line.strip().replace("#", " ")
            found.append(Caption(text, tagged(text)))
    return found


def _lists(root: Path, names: list[str]) -> dict[str, list[str]]:
    """Split lists of the folder, or ones by the hash of each name."""
    if (root / "train.txt").is_file():
        files = {split: root / f"{split}.txt" for split in SPLITS}
        return {s: f.read_text().split() if f.is_file() else [] for s, f in files.items()}
    # In the order of hashes: shares hold in small sets, too, and nobody sorts by subject.
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    test, val = (max(round(share * len(order)), 1) for share in (_TEST, _VAL))
    ends = {"test": (0, test), "val": (test, test + val), "train": (test + val, len(order))}
    return {split: sorted(order[slice(*ends[split])]) for split in SPLITS}


def _info(root: Path, skeleton: MotionSkeleton) -> OwnJoints:
    file = root / "info.json"
    content: Any = {}
    if file.is_file():
        try:
            content = json.loads(file.read_text())
        except ValueError as error:
            raise SuiteError(
                expected="JSON", found=str(error), where=str(file), cure="mend the file"
            ) from error
    try:
        own = OwnJoints(**{"fps": skeleton.fps, **content})
        sound = float(own.fps) > 0 and own.unit in _UNITS and own.up in ("y", "z")
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise SuiteError(
            expected='{"fps": 30, "unit": "m", "up": "y"}; units m, cm, mm; up y or z',
            found=str(content),
            where=str(file),
            cure="correct the file",
        )
    return own
