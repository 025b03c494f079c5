"""A few clips in the layout of the published files, with all that is odd in these.

Features are `compat` and there is no meta.json, as nobody publishes one.
"""

from pathlib import Path

import numpy as np

from blocks.geometry.motion_skeleton import HUMANML3D, MotionSkeleton
from datamodules.motion.embedded_motion import write_motion
from datamodules.motion.writing import META, save_array


def write_miniature(
    root: Path, skeleton: MotionSkeleton = HUMANML3D, clips: int = 8, odd: bool = True
) -> None:
    """Writes the miniature.

    Args:
        root: New folder.
        skeleton: HumanML3D's or KIT-ML's.
        clips: How many, each also mirrored; half of them to train with.
        odd: Add a name without a file, a clip with NaN (first of val), and malformed captions.
    """
    write_motion(root, clips, (0.5, 0.25), skeleton, mode="compat")
    (root / META).unlink()
    if not odd:
        return
    first = (root / "train.txt").read_text().split()[0]
    with (root / "train.txt").open("a") as file:
        file.write("999999\n")
    with (root / "texts" / f"{first}.txt").open("ab") as file:
        file.write(
            b"a person waits.#a/DET person/NOUN wait/VERB#nan#nan\n"
            b"only two fields#0.0\n"
            b"a man\xe2\x80\x99s caf\xe9 #man/NOUN #0.0#0.0 \n"
            b"no tokens here##0.0#0.0\n"
            b"seconds are missing#second/NOUN##\n"
        )
    broken = (root / "val.txt").read_text().split()[0]
    path = root / "new_joint_vecs" / f"{broken}.npy"
    features = np.load(path)
    features[3] = np.nan
    save_array(path, features)
