"""The embedded Human3.6M: people made by formulas, in the true file format.

Seven subjects, fifteen actions in two takes, four cameras, as in the data set; every number is
synthetic. It is written as the pickle that MotionBERT's heirs read, so nothing downstream can tell
the difference.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from blocks.geometry.cameras import Camera, image_factor, image_pose
from blocks.geometry.h36m_cameras import H36M_CAMERAS
from datamodules.embedded import generate_once
from datamodules.pose.body_motion import body_motion
from datamodules.pose.h36m_names import ACTIONS, TEST_SUBJECTS, TRAIN_SUBJECTS, Recording
from datamodules.pose.h36m_pickle import FILE_NAME
from datamodules.pose.synthetic_views import detect, look_at

Preset = Literal["tiny", "small", "base"]
FRAMES: dict[Preset, int] = {"tiny": 54, "small": 108, "base": 162}

# Where the cameras of subject 1 stood, and what they look at, millimetres.
_POSITIONS = np.array(
    [(1841, 4955, 1563), (1761, -5078, 1606), (-1847, 5215, 1492), (-1795, -3723, 1575)], float
)
_TARGET = np.array([0, 0, 900], float)
_TAKES = (1, 2)


def generate_h36m(preset: Preset) -> Path:
    """Folder with the database, written on the first call.

    Args:
        preset: Frames of each of the 840 videos: tiny 54, small 108, base 162.
    """

    def write(folder: Path) -> None:
        content = {
            "train": synthetic_split(TRAIN_SUBJECTS, FRAMES[preset], test=False),
            "test": synthetic_split(TEST_SUBJECTS, FRAMES[preset], test=True),
        }
        with (folder / FILE_NAME).open("wb") as file:
            pickle.dump(content, file, protocol=4)

    return generate_once(f"h36m_synthetic_{preset}_v1", write)


def synthetic_split(subjects: tuple[int, ...], frames: int, test: bool) -> dict[str, Any]:
    """One split of the pickle's dict.

    Args:
        subjects: Numbers among those of Human3.6M.
        frames: Of each video.
        test: Whether to add what only the test has.
    """
    parts: dict[str, list[Any]] = {}
    for recording in _recordings(subjects):
        world = body_motion(recording, frames)
        for number, camera in enumerate(H36M_CAMERAS):
            video = recording._replace(camera=number + 1)
            for key, value in _view(world, video, camera).items():
                parts.setdefault(key, []).append(value)
    content: dict[str, Any] = {
        key: np.concatenate(values).astype(np.float32) for key, values in parts.items()
    }
    videos = [r._replace(camera=n + 1) for r in _recordings(subjects) for n in range(4)]
    content["source"] = [video.name for video in videos for _ in range(frames)]
    content["camera_name"] = np.repeat([H36M_CAMERAS[v.camera - 1].name for v in videos], frames)
    factor = content.pop("2.5d_factor").astype(np.float64)
    if test:
        content["2.5d_factor"] = factor
        content["joints_2.5d_image"] = content["joint3d_image"] * factor[:, None, None]
        content["action"] = [ACTIONS[v.action - 2] for v in videos for _ in range(frames)]
    return content


def _recordings(subjects: tuple[int, ...]) -> Iterator[Recording]:
    for subject in subjects:
        for action in range(2, 2 + len(ACTIONS)):
            for take in _TAKES:
                yield Recording(subject, action, take, 0)


def _view(world: np.ndarray[Any, Any], video: Recording, camera: Camera) -> dict[str, Any]:
    """A recording as one camera and the detector see it."""
    lens = Camera(camera.name, camera.width, camera.height, camera.focal, camera.centre)
    pose = torch.from_numpy(look_at(world, _POSITIONS[video.camera - 1], _TARGET))
    image = image_pose(pose, lens)
    depth = (pose[..., 2] - pose[:, :1, 2]).numpy()
    seed = 4 * (1000 * video.subject + 10 * video.action + video.subaction) + video.camera
    pixels, confidence = detect(image[..., :2].numpy(), depth, np.random.RandomState(seed))
    return {
        "joint_2d": pixels,
        "confidence": confidence,
        "joint3d_image": image.numpy(),
        "2.5d_factor": image_factor(image, pose).numpy(),
    }
