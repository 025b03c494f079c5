"""What a motion module may know about its data."""

from collections.abc import Mapping
from dataclasses import dataclass

from datamodules.info import DataInfo


@dataclass(frozen=True)
class MotionInfo(DataInfo):
    """Facts about motion with captions. Empty values mean: ask the checkpoint.

    Args:
        features: Of a frame, D.
        joints: Of the skeleton, J.
        skeleton: humanml3d or kit.
        fps: Frames in a second.
        metre: How long a metre is in the data's unit.
        mode: How features were extracted: compat or repaired.
        mean: Of the features, D numbers.
        std: The same.
        evaluator_mean: What evaluators subtract.
        evaluator_std: By what they divide.
        evaluator_source: Where these come from.
        max_frames: Frames of the longest sample.
        words: Of training captions, lower case, sorted: matches of `[a-z]+('[a-z]+)?`.
        pos_classes: Classes of words, in the order of `word_classes`.
        word_vectors: glove or hashed.
        contact: none, floor or files.
        counts: Samples by split.
        left_out: By split, what is in its list and not among its samples.
    """

    features: int
    joints: int
    skeleton: str
    fps: float
    metre: float
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    evaluator_mean: tuple[float, ...]
    evaluator_std: tuple[float, ...]
    evaluator_source: str
    max_frames: int
    words: tuple[str, ...]
    pos_classes: tuple[str, ...]
    word_vectors: str
    contact: str
    counts: Mapping[str, int]
    left_out: Mapping[str, Mapping[str, int]]
