"""MPI-INF-3DHP for lifting: windows of P-STMO, evaluation of every valid frame."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.geometry.skeleton import MPI_INF_3DHP
from datamodules.info import digest
from datamodules.inspection import Progress, Remark
from datamodules.pose.clip_reader import ClipReader
from datamodules.pose.clips import Indices, centred_windows, training_windows
from datamodules.pose.database import INDEX, PoseSplit, refuse_nan, write_database
from datamodules.pose.embedded_3dhp import generate_3dhp
from datamodules.pose.embedded_h36m import Preset
from datamodules.pose.h36m_layouts import splits_of
from datamodules.pose.mpi_inf_3dhp_files import TRAIN_WIDTH, open_3dhp
from datamodules.pose.pose_datamodule import PoseDataModule
from datamodules.pose.pose_info import PoseInfo
from datamodules.pose.pose_inspection import describe_poses, validate_poses
from datamodules.pose.transforms import PoseAugment

# The official evaluation's 14 joints: pelvis, spine and the middle of the head are left out.
_PCK_JOINTS = tuple(range(14))
_RECIPE = PoseAugment()


class MPIINF3DHPDataModule(PoseDataModule):
    """MPI-INF-3DHP in P-STMO's archives; an embedded data set when no root is given.

    Batches are those of `PoseDataModule` in this data set's order of joints; groups are the test
    sequences. The 2-D joints are projections of the truth. Millimetres are learnt as if they were
    pixels. Evaluation has one clip around each
    valid frame, and scores that frame alone.

    Args:
        root: Folder with data_train_3dhp.npz and data_test_3dhp.npz, or what `bimamba data convert`
            made of them; null for an embedded one (synthetic).
        preset: Length of the embedded test sequences: tiny 54 frames, small 108, base 162.
        num_frames: Frames of a clip, T; odd.
        train_stride: Frames from one training clip to the next.
        upstream_scale: Predictions on TS5 and TS6 are scaled by their own width (1920), as in all
            published numbers, although the network was trained for 2048: they come out 6 % small.
            False scales them as trained.
        root_relative: Measure labels from the root of each frame; false only measures depth, from
            the root of the first.
        add_velocity: Add the step of each joint to the next frame to its features.
        augment: Augmentation of training clips.
        batch_size: Training clips per process and step; a smaller set is one batch, with a warning.
        val_batch_size: Evaluation clips per process and step; null for `batch_size`.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    skeleton = MPI_INF_3DHP

    def __init__(
        self,
        root: str | None = None,
        preset: Preset = "base",
        num_frames: int = 81,
        train_stride: int = 9,
        upstream_scale: bool = True,
        root_relative: bool = True,
        add_velocity: bool = False,
        augment: PoseAugment = _RECIPE,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int = 4,
        pin_memory: bool = True,
    ) -> None:
        super().__init__(
            root,
            num_frames,
            train_stride,
            "detected",
            root_relative,
            add_velocity,
            augment,
            batch_size,
            val_batch_size,
            num_workers,
            pin_memory,
        )
        self.preset: Preset = preset
        self.upstream_scale = upstream_scale

    def prepare_data(self) -> None:
        """Writes the embedded data and the database into the cache."""
        self._open()

    def setup(self, stage: str) -> None:
        """Opens the database and cuts the clips; reads no frames.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            SuiteError: Files are missing or broken.
        """
        train, test = self._open()
        for split in (train, test) if stage == "fit" else (test,):
            refuse_nan(split)
        train_clips, test_clips = self._clips(train, test)
        if not len(test_clips):
            raise SuiteError(
                expected="valid test frames",
                found="none",
                where=str(self._home()),
                cure="give the whole data set",
            )
        self._eval = ClipReader(test, test_clips, True, self._factors(test), _centre)
        if stage == "fit":
            self._train = ClipReader(train, train_clips, False, self._factors(train))
        self._info = self._facts(train, test)

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts: videos by subject, sequence and camera, frames, clips."""
        train, test = self._open()
        embedded = " (embedded, synthetic)" if self.root is None else ""
        return {
            "root": f"{self._home()}{embedded}",
            **describe_poses(
                {"train": train, "test": test}, self._clips(train, test), self.num_frames
            ),
        }

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Reads the frames and yields what is wrong, as it is found.

        Args:
            sample: Videos of each split to read at most; null reads all.
        """
        return validate_poses(self._open, self.num_frames, sample, detected=False)

    def convert(self, to: Path) -> Iterator[Path | Progress]:
        """Writes the data set as memory-mapped arrays, which open at once and cost no memory.

        Args:
            to: Folder to write to.
        """
        train, test = self._open()
        to.mkdir(parents=True, exist_ok=True)
        yield from write_database(to, {"train": train, "test": test})

    def _home(self) -> Path:
        return generate_3dhp(self.preset) if self.root is None else Path(self.root)

    def _open(self) -> tuple[PoseSplit, PoseSplit]:
        home = self._home()
        return splits_of(home if (home / INDEX).is_file() else open_3dhp(home))

    def _clips(self, train: PoseSplit, test: PoseSplit) -> tuple[Indices, Indices]:
        return (
            training_windows(train.videos, self.num_frames, self.train_stride),
            centred_windows(test, self.num_frames),
        )

    def _factors(self, split: PoseSplit) -> list[float]:
        if self.upstream_scale:
            return [1.0] * len(split.videos)
        return [TRAIN_WIDTH / video.width for video in split.videos]

    def _facts(self, train: PoseSplit, test: PoseSplit) -> PoseInfo:
        protocol = f"3dhp, every valid frame of {len(test.groups)} sequences, T = {self.num_frames}"
        if not self.upstream_scale:
            protocol += ", TS5 and TS6 scaled as trained"
        if self.root is None:
            protocol = f"synthetic ({self.preset}), {protocol}"
        lines = (f"{v.name} {len(v)} {v.camera}" for split in (train, test) for v in split.videos)
        return PoseInfo(
            protocol=protocol,
            root=str(self._home()),
            hash=digest(lines),
            average="frames",
            skeleton="mpi_inf_3dhp",
            pck_joints=_PCK_JOINTS,
            # 25 or 50, by sequence.
            fps=None,
            baselines={},
            # The files' own 2-D joints are projections of the truth.
            **self._common_info() | {"input": "gt"},
        )


def _centre(_: str, count: int) -> npt.NDArray[np.bool_]:
    scored: npt.NDArray[np.bool_] = np.arange(count) == count // 2
    return scored
