"""Human3.6M for lifting: MotionBERT's detections, clips and 2.5-D evaluation."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M
from datamodules.info import digest
from datamodules.inspection import Progress, Remark
from datamodules.pose.baselines import cached_baselines
from datamodules.pose.clip_reader import ClipFolderReader, ClipReader
from datamodules.pose.clips import Indices, split_clips
from datamodules.pose.database import PoseSplit, refuse_nan, write_database
from datamodules.pose.embedded_h36m import Preset, generate_h36m
from datamodules.pose.h36m_layouts import Layout, Source, find_h36m, open_h36m, splits_of
from datamodules.pose.h36m_names import FPS, is_blocked
from datamodules.pose.pose_datamodule import Input, PoseDataModule
from datamodules.pose.pose_info import PoseInfo
from datamodules.pose.pose_inspection import describe_poses, validate_poses
from datamodules.pose.transforms import PoseAugment

_RECIPE = PoseAugment()
_BASELINES = "baselines.json"


class Human36MDataModule(PoseDataModule):
    """Human3.6M in four layouts; the embedded data set when no root is given.

    Batches are those of `PoseDataModule`; groups are the actions. Videos of the three recordings
    with broken truth are in the batches, but none of their frames is scored.

    Args:
        root: Folder of the data set, or its pickle; null for the embedded one (840 synthetic videos
            of seven subjects, fifteen actions and four cameras).
        layout: How the files lie. `pickle`: h36m_sh_conf_cam_source_final.pkl; `clips`: folders
            that MotionBERT or MotionAGFormer cut, beside that pickle; `videopose3d`: its archives;
            `database`: what `bimamba data convert` wrote; `auto`: look.
        keypoints_file: Name of the archive of 2-D joints in VideoPose3D's layout; null takes CPN's
            if it is there.
        preset: Length of the embedded videos: tiny 54 frames, small 108, base 162.
        num_frames: Frames of a clip, T.
        train_stride: Frames from one training clip to the next; null for a third of `num_frames`.
        test_stride: The same in evaluation; null for `num_frames`, which sees each frame once.
        cover_tails: Evaluate the frames after a video's last whole clip too, by one more clip that
            overlaps. Published numbers leave them out.
        input: 2-D joints of a detector, or the projected truth (gt), with confidence 1.
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

    skeleton = H36M

    def __init__(
        self,
        root: str | None = None,
        layout: Layout | Literal["auto"] = "auto",
        keypoints_file: str | None = None,
        preset: Preset = "base",
        num_frames: int = 243,
        train_stride: int | None = None,
        test_stride: int | None = None,
        cover_tails: bool = False,
        input: Input = "detected",  # noqa: A002  the name of the option
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
            max(num_frames // 3, 1) if train_stride is None else train_stride,
            input,
            root_relative,
            add_velocity,
            augment,
            batch_size,
            val_batch_size,
            num_workers,
            pin_memory,
        )
        self.layout: Layout | Literal["auto"] = layout
        self.keypoints_file = keypoints_file
        self.preset: Preset = preset
        self.test_stride = num_frames if test_stride is None else test_stride
        if self.test_stride < 1:
            raise SuiteError(
                expected="at least one frame",
                found=str(test_stride),
                where="data.init_args.test_stride",
                cure="correct it, or leave it out for num_frames",
            )
        self.cover_tails = cover_tails

    def prepare_data(self) -> None:
        """Writes what is missing into the cache: embedded data, database, reference predictors."""
        folder = open_h36m(self._source())
        if self.root is None:
            cached_baselines(self._home() / _BASELINES, self.input, lambda: splits_of(folder))

    def setup(self, stage: str) -> None:
        """Opens the database and cuts the clips; reads no frames.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            SuiteError: Files are missing or broken, there is no clip of `num_frames`, or none that
                an evaluation would score.
        """
        source = self._source()
        train, test = splits_of(open_h36m(source))
        for split in (train, test) if stage == "fit" else (test,):
            refuse_nan(split)
        train_clips, test_clips = self._clips(train, test)
        self._eval = ClipReader(test, test_clips, evaluate=True, scored=_scored)
        if stage == "fit":
            if source.layout == "clips":
                self._train = ClipFolderReader(source.file / "train", self.num_frames)
                _compare(source.file / "test", self._eval, self.num_frames)
            else:
                self._train = ClipReader(train, train_clips, evaluate=False)
            _some(len(self._train), "training", source, self.num_frames)
        _some(len(test_clips), "evaluation", source, self.num_frames)
        if stage != "predict":
            _refuse_blocked_alone(self._eval)
        self._info = self._facts(source, train, test)

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts: layout, videos by subject, action and camera, frames, clips, what is left out."""
        source = self._source()
        train, test = splits_of(open_h36m(source))
        facts: dict[str, str | int | float] = {
            "root": str(source.file) + (" (embedded, synthetic)" if self.root is None else ""),
            "layout": source.layout,
        }
        if source.keypoints is not None:
            facts["2-D joints"] = source.keypoints.name
        clips = self._clips(train, test)
        facts |= describe_poses({"train": train, "test": test}, clips, self.num_frames)
        blocked = sum(len(video) for video in test.videos if is_blocked(video.name))
        facts["test frames of blocked recordings"] = blocked
        return facts

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Reads the frames and yields what is wrong, as it is found.

        Args:
            sample: Videos of each split to read at most; null reads all.
        """

        def opened() -> tuple[PoseSplit, PoseSplit]:
            return splits_of(open_h36m(self._source()))

        return validate_poses(opened, self.num_frames, sample)

    def convert(self, to: Path) -> Iterator[Path | Progress]:
        """Writes the data set as memory-mapped arrays, which open at once and cost no memory.

        Args:
            to: Folder to write to.
        """
        train, test = splits_of(open_h36m(self._source()))
        to.mkdir(parents=True, exist_ok=True)
        yield from write_database(to, {"train": train, "test": test})

    def _home(self) -> Path:
        return generate_h36m(self.preset) if self.root is None else Path(self.root)

    def _source(self) -> Source:
        layout = "pickle" if self.root is None else self.layout
        return find_h36m(self._home(), self.num_frames, layout, self.keypoints_file)

    def _clips(self, train: PoseSplit, test: PoseSplit) -> tuple[Indices, Indices]:
        # One sequence of random numbers for both splits, as upstream draws it after seed 0.
        random = np.random.RandomState(0)
        return (
            split_clips(train.videos, self.num_frames, self.train_stride, random),
            split_clips(test.videos, self.num_frames, self.test_stride, random, self.cover_tails),
        )

    def _facts(self, source: Source, train: PoseSplit, test: PoseSplit) -> PoseInfo:
        scored = {video.group for video in test.videos if not is_blocked(video.name)}
        protocol = f"h36m 2.5-D, {len(scored)} actions, blocked recordings left out"
        protocol += f", T = {self.num_frames}, input {self.input}"
        if source.keypoints is not None:
            protocol += f" ({source.keypoints.stem.removeprefix('data_2d_h36m_')})"
        if self.cover_tails:
            protocol += ", tails covered"
        if self.test_stride != self.num_frames:
            protocol += f", stride {self.test_stride}"
        baselines: Mapping[str, float] = {}
        if self.root is None:
            protocol = f"synthetic ({self.preset}), {protocol}"
            file = self._home() / _BASELINES
            baselines = cached_baselines(file, self.input, lambda: (train, test))
        lines = (f"{v.name} {len(v)} {v.camera}" for split in (train, test) for v in split.videos)
        return PoseInfo(
            protocol=protocol,
            root=str(source.file if source.layout != "pickle" else source.file.parent),
            hash=digest(lines),
            average="groups",
            skeleton="h36m",
            pck_joints=tuple(range(1, 17)),
            fps=FPS,
            baselines=baselines,
            **self._common_info(),
        )


def _scored(name: str, count: int) -> npt.NDArray[np.bool_]:
    return np.full(count, not is_blocked(name))


def _refuse_blocked_alone(clips: ClipReader) -> None:
    names = {clips.split.videos[number].name for number in clips.video_of_clip.tolist()}
    if all(map(is_blocked, names)):
        raise SuiteError(
            expected="an evaluation video whose frames are scored",
            found="only recordings with broken truth, which the protocol leaves out",
            where=", ".join(sorted(names)[:5]),
            cure="add other videos of subjects 9 and 11 to the test split",
        )


def _some(clips: int, what: str, source: Source, num_frames: int) -> None:
    if not clips:
        raise SuiteError(
            expected=f"{what} clips of {num_frames} frames",
            found="none",
            where=str(source.file),
            cure="lower data.init_args.num_frames, or give the whole data set",
        )


def _compare(folder: Path, reader: ClipReader, num_frames: int) -> None:
    """Refuses test clips that were cut from another database or in another way.

    Scores are taken from the database; clips that disagree with it would be scored as something
    else by the original programs.
    """
    stored = ClipFolderReader(folder, num_frames)
    glance = np.linspace(0, len(stored) - 1, min(len(stored), 5)).astype(int).tolist()
    theirs = {index: stored[index]["keypoints"] - 1 for index in glance}
    difference = None
    if len(stored) != len(reader):
        difference = f"{len(stored)} files, {len(reader)} clips in the database"
    else:
        for index, joints in theirs.items():
            raw = reader[index]
            ours = (raw["keypoints"] - raw["size"] / 2) / (raw["size"][0] / 2)
            if not np.allclose(ours, joints, atol=1e-3):
                difference = f"other joints in {stored.names[index]}"
    if difference is not None:
        raise SuiteError(
            expected="the test clips of the database, in its order",
            found=difference,
            where=str(folder),
            cure="cut the clips again, or let the suite do it: data.init_args.layout: pickle",
        )
