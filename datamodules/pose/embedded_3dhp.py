"""The embedded MPI-INF-3DHP: people made by formulas, in the true file format.

Two training subjects with two sequences each before two cameras, and the six test sequences, of
which TS5 and TS6 have the outdoor camera's image. Some test frames are marked invalid. Every number
is synthetic; as in the data set, 2-D joints are exact projections.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blocks.geometry.cameras import Camera, project
from blocks.geometry.keypoints import h36m_to_3dhp
from datamodules.embedded import generate_once
from datamodules.pose.body_motion import body_motion
from datamodules.pose.embedded_h36m import FRAMES, Preset
from datamodules.pose.h36m_names import Recording
from datamodules.pose.mpi_inf_3dhp_files import TEST_FILE, TRAIN_FILE
from datamodules.pose.synthetic_views import look_at

# About those of the data set: a wide lens three metres away.
_INDOORS = Camera("indoors", 2048, 2048, (1500.0, 1500.0), (1024.0, 1024.0))
_OUTDOORS = Camera("outdoors", 1920, 1080, (1410.0, 1410.0), (960.0, 540.0))
_POSITIONS = {"0": np.array([3600.0, 1200, 1500]), "4": np.array([-2600.0, 3000, 1300])}
_TARGET = np.array([0.0, 0, 950])
_FPS = 25
_TRAIN = {"S1 Seq1": (1, 14), "S1 Seq2": (1, 3), "S2 Seq1": (5, 5), "S2 Seq2": (5, 9)}
# Frames of the training sequences for each one of the test.
_LONGER = 4
_INVALID_EVERY = 10


def generate_3dhp(preset: Preset) -> Path:
    """Folder with both archives, written on the first call.

    Args:
        preset: Frames of each test sequence: tiny 54, small 108, base 162; training ones are four
            times as long.
    """

    def write(folder: Path) -> None:
        frames = FRAMES[preset]
        np.savez_compressed(folder / TRAIN_FILE, data=_boxed(_train(_LONGER * frames)))
        np.savez_compressed(folder / TEST_FILE, data=_boxed(_test(frames)))

    return generate_once(f"3dhp_synthetic_{preset}_v1", write)


def _train(frames: int) -> dict[str, Any]:
    data = {}
    for name, (subject, action) in _TRAIN.items():
        world = body_motion(Recording(subject, action, 1, 0), frames)
        views = {key: _view(world, position, _INDOORS) for key, position in _POSITIONS.items()}
        data[name] = [views, _FPS]
    return data


def _test(frames: int) -> dict[str, Any]:
    data = {}
    for number, action in enumerate((14, 3, 5, 9, 2, 16), start=1):
        world = body_motion(Recording(9, action, 1, 0), frames)
        view = _view(world, _POSITIONS["0"], _OUTDOORS if number > 4 else _INDOORS)
        valid = np.ones(frames)
        valid[::_INVALID_EVERY] = 0
        data[f"TS{number}"] = {**view, "valid": valid}
    return data


def _view(world: Any, position: Any, camera: Camera) -> dict[str, Any]:
    pose = look_at(h36m_to_3dhp(world).astype(np.float64), position, _TARGET)
    return {"data_2d": project(torch.from_numpy(pose), camera).numpy(), "data_3d": pose}


def _boxed(data: Mapping[str, Any]) -> Any:
    """An object array of no dimensions, as `savez` makes of a dict."""
    box = np.empty((), dtype=object)
    box[()] = dict(data)
    return box
