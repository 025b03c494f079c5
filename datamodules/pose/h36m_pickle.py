"""Reads `h36m_sh_conf_cam_source_final.pkl`, the Human3.6M database of MotionBERT and its heirs.

A dict of `train` and `test`. Each holds `joint_2d` (N, 17, 2) pixels, `confidence` (N, 17),
`joint3d_image` (N, 17, 3) pixels, `camera_name` (N) and `source` (N); `test` also
`joints_2.5d_image` (N, 17, 3) millimetres, `2.5d_factor` (N) and `action` (N). Hand-made copies
lack a confidence, keep lists for arrays or number the actions: all are accepted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from blocks.errors import SuiteError
from blocks.files import load_pickle
from datamodules.pose.database import Array, PoseSplit, Video, video_runs
from datamodules.pose.h36m_names import CAMERAS, action_name, recording_of

FILE_NAME = "h36m_sh_conf_cam_source_final.pkl"
_JOINTS = 17
# The products in the file are rounded to single precision.
_RELATIVE, _MILLIMETRES = 1e-4, 0.1


def read_h36m_pickle(path: Path) -> dict[str, PoseSplit]:
    """Both splits, in memory.

    Args:
        path: The file.

    Raises:
        SuiteError: It is not such a database; the message names the entry.
    """
    content = load_pickle(path)
    if not isinstance(content, dict) or not {"train", "test"} <= content.keys():
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise SuiteError(
            expected="a dict of train and test",
            found=str(found),
            where=str(path),
            cure=f"give the Human3.6M database, usually {FILE_NAME}",
        )
    return {name: _split(content[name], name, path) for name in ("train", "test")}


def _split(content: Mapping[str, Any], name: str, path: Path) -> PoseSplit:
    where = f"{path}, {name}"
    names = np.asarray(_entry(content, "source", where)).astype(str)
    frames = len(names)
    keypoints = _array(content, "joint_2d", (frames, _JOINTS, 2), where)
    pose = _array(content, "joint3d_image", (frames, _JOINTS, 3), where)
    confidence = None
    if content.get("confidence") is not None:
        flat = np.asarray(content["confidence"], dtype=np.float32)
        flat = flat[..., 0] if flat.ndim == 3 else flat
        confidence = _array({"confidence": flat}, "confidence", (frames, _JOINTS), where)
    cameras = _column(content, "camera_name", frames, where)
    if "action" in content:
        actions = _column(content, "action", frames, where)
    else:
        actions = np.array([str(recording_of(source).action) for source in names.tolist()])
    videos = tuple(
        _video(names, cameras, actions, start, stop, where) for start, stop in video_runs(names)
    )
    split = PoseSplit(videos=videos, keypoints=keypoints, pose=pose, confidence=confidence)
    if name == "train":
        return split
    factor = _array(content, "2.5d_factor", (frames,), where, np.float64)
    target = pose.astype(np.float64) * factor[:, None, None]
    if "joints_2.5d_image" in content:
        shape = (frames, _JOINTS, 3)
        given = _array(content, "joints_2.5d_image", shape, where, np.float64)
        _compare(given, target, where)
        target = given
    return PoseSplit(videos, keypoints, pose, confidence, target=target, factor=factor)


def _video(
    names: Array, cameras: Array, actions: Array, start: int, stop: int, where: str
) -> Video:
    name, camera, action = str(names[start]), str(cameras[start]), str(actions[start])
    if camera not in CAMERAS:
        raise SuiteError(
            expected=f"one of the cameras {', '.join(CAMERAS)}",
            found=camera,
            where=f"{where}, camera_name at frame {start}",
            cure="correct the name; it tells the size of the image",
        )
    for what, column in (("camera_name", cameras), ("action", actions)):
        if (column[start:stop] != column[start]).any():
            raise SuiteError(
                expected=f"one {what} for all frames of {name}",
                found=", ".join(sorted(set(column[start:stop].tolist()))),
                where=f"{where}, frames {start} to {stop - 1}",
                cure="give each video a source name of its own",
            )
    size = CAMERAS[camera].width, CAMERAS[camera].height
    return Video(name, start, stop, *size, group=action_name(action), camera=camera)


def _column(content: Mapping[str, Any], key: str, frames: int, where: str) -> Array:
    """A list of names, one for each frame; bytes and numbers become text."""
    column = np.asarray(_entry(content, key, where))
    if column.shape != (frames,):
        raise _misshaped(key, (frames,), column.shape, where)
    return column.astype(str)


def _array(
    content: Mapping[str, Any],
    key: str,
    shape: tuple[int, ...],
    where: str,
    dtype: Any = np.float32,
) -> Array:
    """An entry of a known shape."""
    entry = _entry(content, key, where)
    try:
        array = np.asarray(entry, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise _misshaped(key, shape, f"{type(error).__name__}: {error}", where) from error
    if array.shape != shape:
        raise _misshaped(key, shape, array.shape, where)
    return array


def _entry(content: Mapping[str, Any], key: str, where: str) -> Any:
    if not isinstance(content, Mapping) or key not in content:
        raise SuiteError(
            expected=f"the entry {key}",
            found=", ".join(map(str, content)) if isinstance(content, Mapping) else "no dict",
            where=where,
            cure="give the database of MotionBERT or MotionAGFormer, not a part of it",
        )
    return content[key]


def _misshaped(key: str, shape: tuple[int, ...], found: object, where: str) -> SuiteError:
    return SuiteError(
        expected=f"{key} of shape {shape}",
        found=str(found),
        where=where,
        cure="one row for each entry of source, 17 joints in the order of Human3.6M",
    )


def _compare(given: Array, computed: Array, where: str) -> None:
    equal = np.isclose(given, computed, _RELATIVE, _MILLIMETRES, equal_nan=True)
    wrong = len(given) - np.count_nonzero(np.all(equal, axis=(1, 2)))
    if wrong:
        rank_zero_warn(
            f"{where}: in {wrong:,} of {len(given):,} frames joints_2.5d_image is not "
            "joint3d_image * 2.5d_factor. Scores are measured against joints_2.5d_image as it is, "
            "and are not those of the literature."
        )
