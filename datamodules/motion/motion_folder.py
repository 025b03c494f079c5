"""A folder in the layout of HumanML3D or KIT-ML: what lies in it, and how it was made.

new_joint_vecs/<id>.npy  features (T, D)      texts/<id>.txt    captions
new_joints/<id>.npy      joints (T, J, 3)     Mean.npy Std.npy  statistics (D,)
train.txt val.txt test.txt  ids of each split   meta.json       of data written by this suite
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.geometry.motion_features import Mode
from blocks.geometry.motion_skeleton import MotionSkeleton
from datamodules.motion.captions import BadLine, Caption, read_captions
from datamodules.motion.statistics import Vector, evaluator_std
from datamodules.motion.writing import META

SPLITS = ("train", "val", "test")
_TREE = "new_joint_vecs/, texts/, Mean.npy, Std.npy, train.txt, val.txt and test.txt"


@dataclass(frozen=True)
class EvaluatorStatistics:
    """By what an evaluator's input is normalised.

    Args:
        mean: (D,).
        std: (D,).
        source: The files, or `Std / 25` where it was derived from the data's own.
    """

    mean: Vector
    std: Vector
    source: str


class MotionFolder:
    """Opens a data set; reads no clips yet.

    Args:
        root: The folder.
        skeleton: Whose features are expected.

    Raises:
        SuiteError: Not such a folder, or one of another skeleton or frame rate.
    """

    def __init__(self, root: Path, skeleton: MotionSkeleton) -> None:
        self.root, self.skeleton = root, skeleton
        missing = [name for name in ("new_joint_vecs", "texts") if not (root / name).is_dir()]
        missing += [f for f in ("Mean.npy", "Std.npy", "train.txt") if not (root / f).is_file()]
        if missing:
            raise SuiteError(
                expected=f"a folder with {_TREE}",
                found=f"no {', '.join(missing)}" if root.is_dir() else "no such folder",
                where=str(root),
                cure="correct data.init_args.root; bimamba data convert makes such a folder from "
                "joints of your own",
            )
        self.meta = _meta(root / META)
        for name, own in (("skeleton", skeleton.name), ("fps", skeleton.fps)):
            if self.meta.get(name, own) != own:
                raise SuiteError(
                    expected=f"motion of {skeleton.name} at {skeleton.fps:g} frames a second",
                    found=f"{name} {self.meta[name]}",
                    where=str(root / META),
                    cure="use the data module of this data set, or convert the joints again",
                )
        self.mean, self.std = (self._statistic(root / name) for name in ("Mean.npy", "Std.npy"))

    @property
    def mode(self) -> Mode:
        """How features were extracted; published data has no meta.json and is `compat`."""
        mode = self.meta.get("mode", "compat")
        if mode not in ("compat", "repaired"):
            raise SuiteError(
                expected="mode compat or repaired",
                found=str(mode),
                where=str(self.root / META),
                cure="correct the file, or convert the joints again",
            )
        return "repaired" if mode == "repaired" else "compat"

    def names(self, split: str) -> list[str]:
        """Ids of a split; empty where its list is missing."""
        file = self.root / f"{split}.txt"
        if not file.is_file():
            return []
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]

    def file(self, name: str) -> Path:
        """File of a clip's features."""
        return self.root / "new_joint_vecs" / f"{name}.npy"

    def features(self, name: str) -> npt.NDArray[np.float32]:
        """Features (T, D) of a clip."""
        array: npt.NDArray[np.float32] = np.load(self.file(name)).astype(np.float32, copy=False)
        return array

    def joints(self, name: str) -> npt.NDArray[np.float32] | None:
        """Stored joints (T, J, 3) of a clip, if there are any."""
        file = self.root / "new_joints" / f"{name}.npy"
        return np.load(file).astype(np.float32, copy=False) if file.is_file() else None

    def captions(self, name: str) -> tuple[dict[int, Caption], list[BadLine]] | None:
        """Captions of a clip by line, and lines that are none; null without a file."""
        file = self.root / "texts" / f"{name}.txt"
        return read_captions(file) if file.is_file() else None

    def evaluator_statistics(self, folder: Path | None = None) -> EvaluatorStatistics:
        """Statistics of evaluators.

        Args:
            folder: Where mean.npy and std.npy lie, perhaps in `meta`; null looks into the data and
                beside it, and takes Std / 25 for the root's features and contacts if it finds none.

        Raises:
            SuiteError: A given folder has no such files.
        """
        short = {"humanml3d": "t2m", "kit": "kit"}[self.skeleton.name]
        pairs = [
            (place / f"{prefix}mean.npy", place / f"{prefix}std.npy")
            for home in ([folder] if folder else [self.root, self.root.parent])
            for place, prefix in ((home / "meta", ""), (home, f"{short}_"), (home, ""))
            # Mean.npy of the data itself is mean.npy where file names have no case.
            if folder or (place, prefix) != (home, "")
        ]
        for mean, std in pairs:
            if mean.is_file() and std.is_file():
                source = str(mean.parent)
                return EvaluatorStatistics(self._statistic(mean), self._statistic(std), source)
        if folder:
            raise SuiteError(
                expected="mean.npy and std.npy of an evaluator, perhaps in meta/",
                found="none" if folder.is_dir() else "no such folder",
                where=str(folder),
                cure="leave data.init_args.evaluator_statistics out to derive them: Std / 25",
            )
        return EvaluatorStatistics(self.mean, evaluator_std(self.std, self.skeleton), "Std / 25")

    def _statistic(self, file: Path) -> Vector:
        vector: Vector = np.load(file).astype(np.float32).reshape(-1)
        wrong = f"{len(vector)} numbers"
        if len(vector) == self.skeleton.num_features:
            if np.isfinite(vector).all() and (
                not file.stem.lower().endswith("std") or _above(vector)
            ):
                return vector
            wrong = "NaN, or a std of 0"
        raise SuiteError(
            expected=f"{self.skeleton.num_features} finite numbers ({self.skeleton.name})",
            found=wrong,
            where=str(file),
            cure="use the data module of this data set; HumanML3D has 263 features, KIT-ML 251",
        )


def _above(std: Vector) -> bool:
    return bool((std > 0).all())


def _meta(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
        return dict(content)
    except (ValueError, TypeError) as error:
        raise SuiteError(
            expected="a JSON object",
            found=str(error),
            where=str(file),
            cure="write the data again",
        ) from error
