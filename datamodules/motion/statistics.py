"""Mean and std of features: one std for each group of them, and the evaluators' own."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blocks.geometry.motion_skeleton import MotionSkeleton

Vector = npt.NDArray[np.float32]
# The published chain divides the std of the root's features and of the contacts by 5, and does so
# twice before an evaluator is trained (EricGuo5513/text-to-motion, feat_bias).
_EMPHASIS = 25.0


class Moments:
    """Sums over clips, in double precision.

    Args:
        skeleton: Whose features are added.
    """

    def __init__(self, skeleton: MotionSkeleton) -> None:
        self.skeleton = skeleton
        self.rows = 0
        self.sum = torch.zeros(skeleton.num_features, dtype=torch.float64)
        self.squares = torch.zeros_like(self.sum)

    def add(self, features: Tensor) -> None:
        """Takes in a clip (T, D)."""
        x = features.double()
        self.rows += len(x)
        self.sum += x.sum(0)
        self.squares += x.square().sum(0)

    def result(self) -> tuple[Vector, Vector]:
        """Mean and std (D,); a group of features shares the mean of its stds."""
        mean = self.sum / max(self.rows, 1)
        std = (self.squares / max(self.rows, 1) - mean.square()).clamp_min(0).sqrt()
        return mean.float().numpy(), grouped(std.float().numpy(), self.skeleton)


def grouped(std: Vector, skeleton: MotionSkeleton) -> Vector:
    """Each group's mean in place of its members; a group that never changes gets 1."""
    found = std.copy()
    for start, stop in skeleton.groups:
        found[start:stop] = std[start:stop].mean() or 1.0
    return found


def evaluator_std(std: Vector, skeleton: MotionSkeleton) -> Vector:
    """Std by which an evaluator's input is divided, from that of the data."""
    found = std.copy()
    found[:4] /= _EMPHASIS
    found[skeleton.groups[-1][0] :] /= _EMPHASIS
    return found
