"""Reads `data_train_3dhp.npz` and `data_test_3dhp.npz`, MPI-INF-3DHP as P-STMO prepared it.

    train: data["S1 Seq1"] = [{camera: {data_2d (F, 17, 2) px, data_3d (F, 17, 3) mm}}, fps]
    test:  data["TS1"] = {data_2d, data_3d, valid (F)}

Both are pickles inside an archive; poses are in camera space, joints in the order of
`blocks.geometry.skeleton.MPI_INF_3DHP`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from blocks.errors import SuiteError
from blocks.files import load_npz
from datamodules.pose.database import Array, PoseSplit, Video, cached_database

TRAIN_FILE, TEST_FILE = "data_train_3dhp.npz", "data_test_3dhp.npz"
TRAIN_WIDTH = 2048
# Two test sequences were filmed outdoors with another camera.
_OUTDOORS, _OUTDOORS_SIZE = ("TS5", "TS6"), (1920, 1080)


def open_3dhp(root: Path) -> Path:
    """Folder of the database, made from the two archives when they are first read.

    Args:
        root: Folder with both.
    """
    files = root / TRAIN_FILE, root / TEST_FILE
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        there = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else []
        raise SuiteError(
            expected=" and ".join(missing),
            found=", ".join(there) or ("an empty folder" if root.is_dir() else "no such folder"),
            where=str(root),
            cure="correct data.init_args.root, or set it to null for the embedded data",
        )
    return cached_database(files, "3dhp", lambda: read_3dhp(*files))


def read_3dhp(train_file: Path, test_file: Path) -> dict[str, PoseSplit]:
    """Both splits, in memory; poses are millimetres.

    Raises:
        SuiteError: Another layout; the message names the sequence.
    """
    return {
        "train": _join(_train_videos(_data(train_file), train_file), train_file),
        "test": _join(_test_videos(_data(test_file), test_file), test_file),
    }


_Part = tuple[str, str, str, Any]


def _train_videos(data: dict[str, Any], path: Path) -> Iterator[_Part]:
    for sequence, content in data.items():
        cameras = content[0] if isinstance(content, (list, tuple)) and content else None
        if not isinstance(cameras, dict):
            raise _misshaped("[{camera: ...}, fps]", type(content).__name__, path, sequence)
        for camera, view in cameras.items():
            yield f"{sequence} {camera}", sequence, str(camera), view


def _test_videos(data: dict[str, Any], path: Path) -> Iterator[_Part]:
    for sequence, view in data.items():
        if not isinstance(view, dict) or "valid" not in view:
            raise _misshaped("data_2d, data_3d and valid", type(view).__name__, path, sequence)
        yield sequence, sequence, "", view


def _join(parts: Iterator[_Part], path: Path) -> PoseSplit:
    videos, keypoints, poses, valid = [], [], [], []
    start = 0
    for name, sequence, camera, view in parts:
        pixels, pose = (_joints(view, key, size, path, name)
                        for key, size in (("data_2d", 2), ("data_3d", 3)))  # fmt: skip
        if len(pixels) != len(pose):
            raise _misshaped(f"{len(pixels)} poses", str(len(pose)), path, name)
        size = _OUTDOORS_SIZE if sequence in _OUTDOORS else (TRAIN_WIDTH, TRAIN_WIDTH)
        videos.append(Video(name, start, start + len(pose), *size, group=sequence, camera=camera))
        start += len(pose)
        keypoints.append(pixels.astype(np.float32))
        poses.append(pose)
        if "valid" in view:
            valid.append(np.asarray(view["valid"]).reshape(-1) > 0)
            if len(valid[-1]) != len(pose):
                raise _misshaped(f"{len(pose)} values in valid", str(len(valid[-1])), path, name)
    if not videos:
        raise _misshaped("sequences", "none", path, "data")
    pose = np.concatenate(poses)
    return PoseSplit(
        videos=tuple(videos),
        keypoints=np.concatenate(keypoints),
        pose=pose.astype(np.float32),
        target=pose if valid else None,
        valid=np.concatenate(valid) if valid else None,
    )


def _data(path: Path) -> dict[str, Any]:
    data = load_npz(path).get("data")
    if not isinstance(data, dict):
        raise _misshaped("a dict of sequences", type(data).__name__, path, "data")
    return data


def _joints(view: Any, key: str, size: int, path: Path, name: str) -> Array:
    """Frames of 17 joints, double precision."""
    if not isinstance(view, dict) or key not in view:
        raise _misshaped(key, type(view).__name__, path, name)
    joints = np.asarray(view[key], dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (17, size):
        raise _misshaped(f"{key} of shape (frames, 17, {size})", str(joints.shape), path, name)
    return joints


def _misshaped(expected: str, found: str, path: Path, where: str) -> SuiteError:
    return SuiteError(
        expected=expected,
        found=found,
        where=f"{path}, {where}",
        cure="prepare MPI-INF-3DHP as paTRICK-swk/P-STMO or TaatiTeam/MotionAGFormer describe",
    )
