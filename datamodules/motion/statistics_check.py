"""Do Mean.npy, Std.npy and an evaluator's statistics fit the data?"""

from collections.abc import Iterator

import numpy as np

from datamodules.inspection import Remark
from datamodules.motion.motion_folder import EvaluatorStatistics, MotionFolder
from datamodules.motion.statistics import Moments, evaluator_std

_GROUPS = ("turn", "step", "height", "places", "rotations", "velocities", "contacts")
# Rows that tell a std within a tenth, and within a half.
_MANY = 100_000
_FEW = 5_000


def compare_moments(folder: MotionFolder, moments: Moments) -> Iterator[Remark]:
    """Remarks where Mean and Std are not those of the training clips.

    Args:
        folder: Has Mean.npy and Std.npy.
        moments: Of the training clips that were read.
    """
    skeleton = folder.skeleton
    for (start, stop), name in zip(skeleton.groups, _GROUPS, strict=True):
        part = folder.std[start:stop]
        if np.ptp(part) > 1e-3 * part.mean():
            yield Remark(
                "warning",
                "one std for each group of features",
                f"{part.min():.4g} to {part.max():.4g} for {name}, features {start} to {stop - 1}",
                "Std.npy",
                "give each group its mean: noise must not be as loud as motion",
            )
    if moments.rows < _FEW:
        return
    mean, std = moments.result()
    share = 1.1 if moments.rows >= _MANY else 1.5
    for (start, stop), name in zip(skeleton.groups, _GROUPS, strict=True):
        ratio = float(folder.std[start:stop].mean() / std[start:stop].mean())
        shift = float(np.abs(folder.mean[start:stop] - mean[start:stop]).max() / std[start])
        if not 1 / share < ratio < share or shift > share - 1:
            yield Remark(
                "warning",
                "Mean.npy and Std.npy of the training clips",
                f"{name}: std {ratio:.3g} times theirs, mean off by {shift:.3g} std",
                str(folder.root),
                "use the files that came with these clips, or convert the joints again",
            )


def compare_with_evaluator(
    folder: MotionFolder, statistics: EvaluatorStatistics
) -> Iterator[Remark]:
    """Remarks where an evaluator's std is not the data's / 25 on root and contacts.

    Args:
        folder: Has Std.npy.
        statistics: Of the evaluator.
    """
    expected = evaluator_std(folder.std, folder.skeleton)
    for (start, stop), name in zip(folder.skeleton.groups, _GROUPS, strict=True):
        ratio = float((statistics.std[start:stop] / expected[start:stop]).mean())
        if not 0.9 < ratio < 1.1:
            plain = 22 < ratio < 28
            yield Remark(
                "warning",
                "an evaluator's std: the data's own, divided by 25 for the root and contacts",
                f"{ratio:.3g} times that for {name}" + (" (the data's own)" if plain else ""),
                statistics.source,
                "give the folder meta of the evaluator's own checkpoint, never Mean and Std",
            )
