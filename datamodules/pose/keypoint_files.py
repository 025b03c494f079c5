"""Reads 2-D joints that detectors wrote: OpenPose, AlphaPose, MMPose, or arrays.

    OpenPose    a folder of <name>_keypoints.json, one a frame: people[].pose_keypoints_2d
    AlphaPose   one .json: a list of {image_id, keypoints, idx}
    MMPose      one .json: a list, or instance_info, of {frame_id, instances[].keypoints, ...}
    arrays      .npz or .npy: keypoints (F, J, 2 or 3), or (people, F, J, 2 or 3)

People are told apart by the identity that the file gives, and followed by the nearest body where it
gives none. Joints that were not found, one by one or with the whole person, are filled in between
the frames around, with confidence 0.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.files import load_npz
from blocks.geometry.keypoints import CONVERTERS

Array = npt.NDArray[np.float32]
Joints = Literal["h36m", "coco", "halpe", "mediapipe", "openpose"]
# Joints of a file that does not say whose they are, by their number.
_BY_COUNT: dict[int, Joints] = {17: "coco", 25: "openpose", 26: "halpe", 33: "mediapipe"}


@dataclass(frozen=True)
class Track:
    """One person in one video.

    Args:
        name: File or folder, and the person's number if there are several.
        joints: Of Human3.6M, (F, 17, 3): x and y in pixels, confidence.
        seen: Frames in which the detector found the person, (F,).
    """

    name: str
    joints: Array
    seen: npt.NDArray[np.bool_]


def read_keypoints(path: Path, joints: Joints | None = None) -> list[Track]:
    """Every person of a file or of a folder of OpenPose.

    Args:
        path: The file, or the folder with a file for each frame.
        joints: Whose joints they are; null tells by their number (17 are taken for COCO's).

    Raises:
        SuiteError: Nothing that the readers know, or nobody in it.
    """
    try:
        if path.is_dir():
            people = _follow(_openpose(path))
        elif path.suffix == ".json":
            people = _follow(_json(path))
        else:
            people = _arrays(path)
    except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if not people:
        raise _unreadable(path, "nobody in any frame")
    return [
        _track(path.stem if len(people) == 1 else f"{path.stem}_{number}", person, joints, path)
        for number, person in enumerate(people)
    ]


# Frame number, identity or null, joints (J, 2 or 3).
_Found = tuple[int, object, npt.NDArray[np.floating[Any]]]


def _openpose(folder: Path) -> Iterator[_Found]:
    files = sorted(folder.glob("*_keypoints.json")) or sorted(folder.glob("*.json"))
    for frame, file in enumerate(files):
        for person in json.loads(file.read_text())["people"]:
            yield frame, None, np.array(person["pose_keypoints_2d"], float).reshape(-1, 3)


def _json(path: Path) -> Iterator[_Found]:
    content = json.loads(path.read_text())
    entries = content["instance_info"] if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError("neither a list nor a dict with instance_info")
    if entries and "instances" in entries[0]:
        return _mmpose(entries)
    return _alphapose(entries)


def _mmpose(entries: list[dict[str, Any]]) -> Iterator[_Found]:
    for number, entry in enumerate(entries):
        # MMPose counts from 1 or 0, by version; only the distance matters.
        frame = int(entry.get("frame_id", number)) - int(entries[0].get("frame_id", 0))
        for person in entry["instances"]:
            xy = np.array(person["keypoints"], float)
            scores = np.array(person.get("keypoint_scores", np.ones(len(xy))), float)
            yield frame, person.get("track_id"), np.column_stack((xy, scores))


def _alphapose(entries: list[dict[str, Any]]) -> Iterator[_Found]:
    numbers = [int("".join(re.findall(r"\d+", str(entry["image_id"]))[-1:]) or 0)
               for entry in entries]  # fmt: skip
    for number, entry in zip(numbers, entries, strict=True):
        identity = entry.get("idx")
        # PoseFlow wraps an identity in lists.
        while isinstance(identity, list):
            identity = identity[0] if identity else None
        joints = np.array(entry["keypoints"], float).reshape(-1, 3)
        yield number - min(numbers), identity, joints


def _arrays(path: Path) -> list[dict[int, Any]]:
    content = load_npz(path) if path.suffix == ".npz" else {"keypoints": np.load(path)}
    array = np.asarray(content["keypoints"] if "keypoints" in content else content["joint_2d"])
    if "confidence" in content and array.shape[-1] == 2:
        array = np.concatenate((array, content["confidence"].reshape(*array.shape[:-1], 1)), -1)
    people = array[None] if array.ndim == 3 else array
    return [dict(enumerate(person)) for person in people]


def _follow(found: Iterator[_Found]) -> list[dict[int, Any]]:
    """Persons as frame to joints: by identity, else the nearest body of the frame before."""
    people: dict[object, dict[int, Any]] = {}
    frames: dict[int, list[_Found]] = {}
    for item in found:
        frames.setdefault(item[0], []).append(item)
    for frame in sorted(frames):
        free = {key for key in people if isinstance(key, tuple)}
        for _, identity, joints in frames[frame]:
            key = identity
            if key is None:
                key = min(free, key=lambda k: _distance(people[k], joints), default=None)  # noqa: B023
                if key is None or _distance(people[key], joints) > _size(joints):
                    key = ("new", len(people))
                free.discard(key)
            people.setdefault(key, {})[frame] = joints
    return sorted(people.values(), key=len, reverse=True)


def _distance(person: dict[int, Any], joints: Any) -> float:
    """Between bodies, pixels: median over joints that both have."""
    last = person[max(person)]
    return float(np.median(np.linalg.norm(last[:, :2] - joints[:, :2], axis=-1)))


def _size(joints: Any) -> float:
    """Height of a body in the image: one that moved further is another one."""
    return float(np.ptp(joints[:, 1])) + 1.0


def _track(name: str, person: dict[int, Any], joints: Joints | None, path: Path) -> Track:
    """Joints of Human3.6M for every frame from 0 to the last one."""
    frames = np.array(sorted(person))
    found = np.stack([person[frame] for frame in frames.tolist()])
    if found.ndim != 3 or found.shape[-1] not in (2, 3):
        raise _unreadable(path, f"joints of shape {found.shape[1:]}")
    if found.shape[-1] == 2:
        found = np.concatenate((found, np.ones_like(found[..., :1])), -1)
    kind = joints or _BY_COUNT.get(found.shape[1])
    if kind is None or (kind == "h36m" and found.shape[1] != 17):
        raise _unreadable(path, f"{found.shape[1]} joints" + (" for h36m" if kind else ""))
    every = np.arange(frames[-1] + 1)
    filled = np.stack([_filled(every, frames, found[:, j]) for j in range(found.shape[1])], 1)
    if kind != "h36m":
        filled = CONVERTERS[kind](filled)
    return Track(name, filled.astype(np.float32), np.isin(every, frames))


def _filled(every: Any, frames: Any, joint: Any) -> Any:
    """One joint (F, 3) in every frame: in between where it was not found, with confidence 0."""
    # OpenPose writes zeros for a joint that it does not see.
    seen = (joint[:, 2] > 0) & np.isfinite(joint).all(1)
    out = np.zeros((len(every), 3))
    if seen.any():
        for axis in (0, 1):
            out[:, axis] = np.interp(every, frames[seen], joint[seen, axis])
        out[frames[seen], 2] = joint[seen, 2]
    return out


def _unreadable(path: Path, found: str) -> SuiteError:
    return SuiteError(
        expected="joints of OpenPose (a folder), AlphaPose or MMPose (.json), or arrays (.npz)",
        found=found if path.exists() else "no such file",
        where=str(path),
        cure="see datamodules/pose/keypoint_files.py for the formats, and name the detector's "
        "joints with data.init_args.joints",
    )
