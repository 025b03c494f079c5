"""Reads VideoPose3D's pair of archives and computes from it what Human3.6M's database holds.

`data_3d_h36m.npz` has positions in the world (F, 32, 3) in metres;
`data_2d_h36m_<detector>.npz` has pixels (F, 17, 2) for each of the four cameras. From these come
the pose in the image, its factor and the 2.5-D target (`blocks.geometry.cameras`). Projections
leave the lens out, as the database does. Sub-action 1 of a subject's action is the one with the
lower number in its name, and a name without number is the last, as in the data set's own table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blocks.errors import SuiteError
from blocks.files import load_npz
from blocks.geometry.cameras import Camera, image_factor, image_pose, world_to_camera
from blocks.geometry.h36m_cameras import H36M_CAMERAS, H36M_POSITIONS
from blocks.geometry.keypoints import coco_to_h36m
from blocks.geometry.skeleton import H36M
from datamodules.pose.database import Array, PoseSplit, Video
from datamodules.pose.h36m_names import ACTIONS, TEST_SUBJECTS, Recording, action_number

POSITIONS_FILE = "data_3d_h36m.npz"
KEYPOINTS_FILES = "data_2d_h36m_*.npz"
# Of the skeleton of 32; the others do not move on their own.
KEPT_JOINTS = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
_COCO_LEFT = [1, 3, 5, 7, 9, 11, 13, 15]
# Half of all joints further off than this: another camera or another video.
_FAR_PX = 60.0

_Positions = Mapping[str, Mapping[str, Array]]
_Pixels = Mapping[str, Mapping[str, list[Array]]]


def choose_keypoints(root: Path, name: str | None) -> Path:
    """The file of 2-D joints to read: the one asked for, else CPN's, else any detector's.

    Args:
        root: Folder of the archives.
        name: File name, or null.
    """
    if name is not None:
        return root / name
    found = sorted(root.glob(KEYPOINTS_FILES))
    if not found:
        raise SuiteError(
            expected=f"joints in the images, {KEYPOINTS_FILES}",
            found="none",
            where=str(root),
            cure=f"put VideoPose3D's 2-D archive beside {POSITIONS_FILE}",
        )
    return min(found, key=lambda file: ("cpn" not in file.name, "_gt" in file.name, file.name))


def read_videopose3d(positions_file: Path, keypoints_file: Path) -> dict[str, PoseSplit]:
    """Both splits: subjects 9 and 11 are the test.

    Raises:
        SuiteError: Another layout, a video without joints, or joints that do not fit the poses.
    """
    positions: _Positions = _entry(load_npz(positions_file), "positions_3d", positions_file)
    content = load_npz(keypoints_file)
    pixels: _Pixels = _entry(content, "positions_2d", keypoints_file)
    coco = _is_coco(content.get("metadata", {}), keypoints_file)
    parts: dict[str, list[tuple[Recording, Array, Array]]] = {"train": [], "test": []}
    for subject, actions in positions.items():
        number = _subject(subject, positions_file)
        for action, recording in _recordings(number, list(actions), positions_file):
            world = _seventeen(np.asarray(actions[action]), f"{positions_file}, {subject} {action}")
            views = _views(pixels, subject, action, len(world), keypoints_file)
            split = parts["test" if number in TEST_SUBJECTS else "train"]
            for camera, view in enumerate(views):
                video = recording._replace(camera=camera + 1)
                split.append((video, world, coco_to_h36m(view)[..., :2] if coco else view))
    splits = {name: _split(videos) for name, videos in parts.items()}
    _check(splits, keypoints_file)
    return splits


def _split(recordings: list[tuple[Recording, Array, Array]]) -> PoseSplit:
    videos, keypoints, poses, factors = [], [], [], []
    start = 0
    for recording, world, pixels in recordings:
        camera = H36M_CAMERAS[recording.camera - 1]
        plain = replace(camera, radial=(0.0, 0.0, 0.0), tangential=(0.0, 0.0))
        pose = _in_camera(world, recording)
        image = image_pose(pose, plain)
        factors.append(image_factor(image, pose).numpy())
        poses.append(image.numpy().astype(np.float32))
        keypoints.append(pixels.astype(np.float32))
        videos.append(_video(recording, camera, start, start + len(world)))
        start += len(world)
    pose_array = np.concatenate(poses) if poses else np.empty((0, 17, 3), np.float32)
    factor = np.concatenate(factors) if factors else np.empty(0)
    return PoseSplit(
        videos=tuple(videos),
        keypoints=np.concatenate(keypoints) if keypoints else np.empty((0, 17, 2), np.float32),
        pose=pose_array,
        target=pose_array * factor[:, None, None],
        factor=factor,
    )


def _in_camera(world: Array, recording: Recording) -> torch.Tensor:
    """Metres in the world to millimetres before the camera, double precision."""
    orientation, position = H36M_POSITIONS[recording.subject][recording.camera - 1]
    points = torch.from_numpy(world.astype(np.float64)) * 1000
    return world_to_camera(
        points,
        torch.tensor(orientation, dtype=torch.float64),
        torch.tensor(position, dtype=torch.float64),
    )


def _video(recording: Recording, camera: Camera, start: int, stop: int) -> Video:
    action = ACTIONS[recording.action - 2]
    size = camera.width, camera.height
    return Video(recording.name, start, stop, *size, group=action, camera=camera.name)


def _entry(content: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in content or not isinstance(content[key], dict):
        raise SuiteError(
            expected=f"VideoPose3D's archive with {key}, a dict of subjects",
            found=", ".join(content) or "an empty archive",
            where=str(path),
            cure="give data_3d_h36m.npz and data_2d_h36m_<detector>.npz under their own names",
        )
    return content[key]


def _subject(name: str, path: Path) -> int:
    digits = name.removeprefix("S")
    if not digits.isdecimal() or int(digits) not in H36M_POSITIONS:
        raise SuiteError(
            expected=f"subjects among {', '.join(f'S{n}' for n in H36M_POSITIONS)}",
            found=name,
            where=str(path),
            cure="remove it: the cameras' places are known for these only",
        )
    return int(digits)


def _recordings(subject: int, names: list[str], path: Path) -> Iterator[tuple[str, Recording]]:
    """Each action's name in the file with its place in the data set."""
    takes: dict[str, list[tuple[float, str]]] = {}
    for name in names:
        action, _, number = name.partition(" ")
        if action not in ACTIONS:
            raise SuiteError(
                expected=f"actions among {', '.join(ACTIONS)}",
                found=name,
                where=f"{path}, S{subject}",
                cure="use VideoPose3D's names",
            )
        takes.setdefault(action, []).append((float(number) if number else np.inf, name))
    for action, numbered in takes.items():
        for place, (_, name) in enumerate(sorted(numbered), start=1):
            yield name, Recording(subject, action_number(action), place, 0)


def _seventeen(positions: Array, where: str) -> Array:
    if positions.ndim == 3 and positions.shape[1:] == (32, 3):
        return positions[:, KEPT_JOINTS]
    if positions.ndim == 3 and positions.shape[1:] == (17, 3):
        return positions
    raise SuiteError(
        expected="positions of shape (frames, 32, 3) in metres",
        found=str(positions.shape),
        where=where,
        cure="prepare the archive with VideoPose3D's prepare_data_h36m.py",
    )


def _views(pixels: _Pixels, subject: str, action: str, frames: int, path: Path) -> list[Array]:
    """Joints in the four images, cut to the frames with a pose."""
    views = [np.asarray(view) for view in pixels.get(subject, {}).get(action, [])]
    fits = [v.ndim == 3 and v.shape[1] == 17 and len(v) >= frames for v in views]
    if len(views) != len(H36M_CAMERAS) or not all(fits):
        raise SuiteError(
            expected=f"four arrays of at least {frames} frames and 17 joints",
            found=", ".join(str(view.shape) for view in views) or "none",
            where=f"{path}, {subject} {action}",
            cure="use an archive made for the same recordings, such as data_2d_h36m_gt.npz",
        )
    return [view[:frames, :, :2] for view in views]


def _is_coco(metadata: Mapping[str, Any], path: Path) -> bool:
    """Whether joints are COCO's 17 and not Human3.6M's; the file tells its left joints."""
    left = [int(joint) for joint in metadata.get("keypoints_symmetry", [H36M.left])[0]]
    if left not in (list(H36M.left), _COCO_LEFT):
        raise SuiteError(
            expected="17 joints in the order of Human3.6M or of COCO",
            found=f"left joints {left}",
            where=f"{path}, metadata",
            cure="use data_2d_h36m_cpn_ft_h36m_dbb.npz",
        )
    return left == _COCO_LEFT


def _check(splits: Mapping[str, PoseSplit], path: Path) -> None:
    """Refuses joints that belong to other cameras or other videos."""
    for split in splits.values():
        for video in split.videos:
            part = slice(video.start, video.stop)
            offset = np.linalg.norm(split.keypoints[part] - split.pose[part, :, :2], axis=-1)
            if np.median(offset) > _FAR_PX:
                raise SuiteError(
                    expected="joints near the projected poses",
                    found=f"a median distance of {np.median(offset):.0f} px",
                    where=f"{path}, {video.name}",
                    cure="use the archive of the same recordings, cameras in the order "
                    + ", ".join(camera.name for camera in H36M_CAMERAS),
                )
