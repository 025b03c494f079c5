"""Names and numbers of the ScanNet200-SV layout (xuxw98/ESAM, data/scannet200-sv).

points/sceneXXXX_XX_N.bin          float32 (P, 6): x y z in metres, r g b of 0..255
instance_mask/sceneXXXX_XX_N.bin   int64 (P,): 0 nobody's, else object of the scene from 1
semantic_mask/sceneXXXX_XX_N.bin   int64 (P,): id in the label table, 0 for none
super_points/sceneXXXX_XX_N.bin    int64 (P,): 0.. without gaps
2D/sceneXXXX_XX/{color/N.jpg, depth/N.png, pose/N.txt}
pose_centered/sceneXXXX_XX/N.npy   float64 (4, 4): camera to (world less the frame's mean point)
scannet200_sv_oneformer3d_infos_{train,val}.pkl
meta_data/scannetv2_sv_{train,val}.txt
"""

import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from blocks.errors import SuiteError

Split = Literal["train", "val"]

POINTS, INSTANCES, SEMANTICS = "points", "instance_mask", "semantic_mask"
SUPERPOINTS = "super_points"
IMAGES, POSES = "2D", "pose_centered"
INFOS = ("scannet200_sv_oneformer3d_infos_{split}.pkl", "*infos*{split}*.pkl")
LISTS = "scannetv2_sv_{split}.txt"
SCENE_LISTS = "scannetv2_{split}.txt"
LABELS = "scannetv2-labels.combined.tsv"
# Intrinsics stand nowhere in the layout: those of the depth camera at this size.
IMAGE_SIZE = (640, 480)
INTRINSICS = np.array([(577.870605, 0, 319.5), (0, 577.870605, 239.5), (0, 0, 1)])

_NAME = re.compile(r"(scene\d{4}_\d{2})_(\d+)")


class FrameName(NamedTuple):
    """One frame.

    Args:
        scene: Such as scene0000_00.
        number: Of the exported frame.
    """

    scene: str
    number: int

    @classmethod
    def parse(cls, text: str, where: str) -> "FrameName":
        """From sceneXXXX_XX_N, with or without a suffix.

        Raises:
            SuiteError: Another name.
        """
        found = _NAME.fullmatch(Path(text).name.partition(".")[0])
        if not found:
            raise SuiteError(
                expected="frames named sceneXXXX_XX_N",
                found=text,
                where=where,
                cure="keep the names that the preparation of ScanNet200-SV gave them",
            )
        return cls(found[1], int(found[2]))

    @property
    def file(self) -> str:
        """Name of its .bin files."""
        return f"{self.scene}_{self.number}.bin"

    @property
    def image(self) -> str:
        """Colour image below the root."""
        return f"{IMAGES}/{self.scene}/color/{self.number}.jpg"

    @property
    def depth(self) -> str:
        """Depth image below the root."""
        return f"{IMAGES}/{self.scene}/depth/{self.number}.png"

    @property
    def pose(self) -> str:
        """Centred pose below the root."""
        return f"{POSES}/{self.scene}/{self.number}.npy"

    def __str__(self) -> str:
        return f"{self.scene}/{self.number}"
