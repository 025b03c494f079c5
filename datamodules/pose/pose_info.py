"""What a pose module may know about its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from datamodules.info import DataInfo


@dataclass(frozen=True)
class PoseInfo(DataInfo):
    """Facts about a set of 2-D joints with 3-D poses.

    Args:
        num_frames: Frames of a clip as the network sees them, T.
        frames: Frames of the evaluated split; `frame` of a batch counts them.
        groups: Names of actions or sequences; `group` of a batch is a place in them.
        average: Whether the score is the mean over groups or over frames.
        skeleton: Of inputs and poses: h36m or mpi_inf_3dhp.
        pck_joints: Joints that count for PCK and AUC.
        input: Whether 2-D joints are a detector's or the ground truth.
        fps: Frames in a second; null where recordings differ.
        in_features: Features of an input joint: 3 (x, y, confidence), or 5 with its velocity.
        root_relative: Whether labels are measured from the root in every frame.
        baselines: P1 in millimetres of simple predictors on the same data, by name; empty where
            nobody computed them.
        num_train: Training clips read for this stage.
        num_eval: Evaluation clips.
    """

    num_frames: int
    frames: int
    groups: tuple[str, ...]
    average: Literal["groups", "frames"]
    skeleton: Literal["h36m", "mpi_inf_3dhp"]
    pck_joints: tuple[int, ...]
    input: Literal["detected", "gt"]
    fps: float | None
    in_features: int
    root_relative: bool
    baselines: Mapping[str, float]
    num_train: int
    num_eval: int
