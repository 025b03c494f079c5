"""A mended copy of a motion data set: turns put right, joints recovered, broken clips left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blocks.errors import SuiteError
from blocks.files import write_json
from blocks.geometry.motion_features import recover_joints, repair_heading, wrapped_frames
from datamodules.inspection import Progress
from datamodules.motion.clip_index import clip_fact
from datamodules.motion.motion_folder import SPLITS, MotionFolder
from datamodules.motion.writing import MotionWriter

LIST = "repair.json"
_REASONS = ("missing", "unreadable", "nan", "without a caption")


def repair_motion(folder: MotionFolder, to: Path) -> Iterator[Path | Progress]:
    """Writes the copy; the original stays as it is.

    Names of clips that were changed or left out, and why, are in `repair.json`. Mean and Std stay
    those of the original: a model trained with them goes on working.

    Args:
        folder: The data set.
        to: New or empty folder.
    """
    writer = MotionWriter(to, folder.skeleton, folder.mode, f"repaired copy of {folder.root}")
    writer.notes = {k: v for k, v in folder.meta.items() if k not in ("mode", "source")}
    names = {split: folder.names(split) for split in SPLITS}
    total, done = sum(map(len, names.values())), 0
    changed: dict[str, list[str]] = {"headings": [], "joints": [], "captions": []}
    left: dict[str, list[str]] = {reason: [] for reason in _REASONS}
    kept: dict[str, list[str]] = {}
    for split, members in names.items():
        kept[split] = []
        for name in members:
            done += 1
            yield Progress(done, total, "clips")
            reason = _why_not(folder, name)
            if reason:
                left[reason].append(name)
                continue
            kept[split].append(name)
            yield _mend(folder, writer, name, changed)
    writer.write_lists(kept)
    writer.write_statistics(folder.mean, folder.std)
    content: dict[str, Any] = {"changed": changed, "left_out": left}
    write_json(to / LIST, content)
    yield to / LIST
    yield writer.close()


def _why_not(folder: MotionFolder, name: str) -> str:
    try:
        fact = clip_fact(folder, name)
    except SuiteError:
        return "unreadable"
    if fact.frames == 0:
        return "missing"
    if not fact.finite:
        return "nan"
    found = folder.captions(name)
    return "" if found and found[0] else "without a caption"


def _mend(
    folder: MotionFolder, writer: MotionWriter, name: str, changed: dict[str, list[str]]
) -> Path:
    features = torch.from_numpy(folder.features(name))
    if wrapped_frames(features, folder.skeleton).any():
        changed["headings"].append(name)
        # In double precision: the turn is a difference of nearly equal places.
        features = repair_heading(features.double(), folder.skeleton).float()
    joints = recover_joints(features.double(), folder.skeleton).float()
    stored = folder.joints(name)
    if stored is None or stored.shape != joints.shape or not np.allclose(stored, joints, atol=1e-3):
        changed["joints"].append(name)
    captions, bad = folder.captions(name) or ({}, [])
    if bad:
        changed["captions"].append(name)
    lines = [(c.text, c.tokens, c.start, c.stop) for c in captions.values()]
    writer.write_texts(name, lines)
    return writer.write_clip(name, features, joints)
