"""Writes motion data in the layout of HumanML3D and KIT-ML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from blocks.files import atomic_path, write_json, write_text
from blocks.geometry.motion_features import Mode
from blocks.geometry.motion_skeleton import MotionSkeleton
from datamodules.motion.statistics import Vector

# A caption, its tagged words, and the seconds it is about; 0 to 0 is the whole clip.
Line = tuple[str, str, float, float]
META = "meta.json"


class MotionWriter:
    """A folder that is filled clip by clip.

    Args:
        folder: Where to write.
        skeleton: Whose features are written.
        mode: How they were extracted.
        source: What they come from, in a few words.
    """

    def __init__(self, folder: Path, skeleton: MotionSkeleton, mode: Mode, source: str) -> None:
        self.folder, self.skeleton, self.mode, self.source = folder, skeleton, mode, source
        self.notes: dict[str, Any] = {}
        for name in ("new_joint_vecs", "new_joints", "texts"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def write_clip(self, name: str, features: Tensor, joints: Tensor) -> Path:
        """Writes features (T, D) and the joints (T, J, 3) recovered from them."""
        save_array(self.folder / "new_joints" / f"{name}.npy", joints.float().numpy())
        file = self.folder / "new_joint_vecs" / f"{name}.npy"
        save_array(file, features.float().numpy())
        return file

    def write_texts(self, name: str, lines: Sequence[Line]) -> None:
        """Writes the captions of a clip."""
        text = "".join(f"{caption}#{tags}#{a}#{b}\n" for caption, tags, a, b in lines)
        write_text(self.folder / "texts" / f"{name}.txt", text)

    def write_lists(self, names: Mapping[str, Sequence[str]]) -> None:
        """Writes the names of each split, and those of train_val and all."""
        lists = {split: list(members) for split, members in names.items()}
        lists["train_val"] = lists.get("train", []) + lists.get("val", [])
        lists["all"] = sorted({name for members in lists.values() for name in members})
        for split, members in lists.items():
            write_text(self.folder / f"{split}.txt", "".join(f"{name}\n" for name in members))

    def write_statistics(self, mean: Vector, std: Vector) -> None:
        """Writes Mean.npy and Std.npy."""
        save_array(self.folder / "Mean.npy", mean)
        save_array(self.folder / "Std.npy", std)

    def close(self) -> Path:
        """Writes what the folder is; the last file, so that a half-written folder lacks it."""
        file = self.folder / META
        content = {
            "skeleton": self.skeleton.name,
            "mode": self.mode,
            "fps": self.skeleton.fps,
            "source": self.source,
        }
        write_json(file, content | self.notes)
        return file


def save_array(file: Path, array: Any) -> None:
    """Writes an array in one step."""
    with atomic_path(file) as temporary:
        np.save(temporary, array)
