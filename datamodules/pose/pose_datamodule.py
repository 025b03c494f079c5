"""What the data modules of this wing share: batches, loaders, and facts about them."""

from abc import abstractmethod
from typing import Any, Literal

from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from blocks.geometry.skeleton import Skeleton
from datamodules.pose.clip_reader import ClipFolderReader, ClipReader
from datamodules.pose.pose_info import PoseInfo
from datamodules.pose.transforms import NO_AUGMENT, ClipTransform, PoseAugment
from datamodules.resumable import ResumableDataModule

Batch = dict[str, Any]
Reader = ClipReader | ClipFolderReader
Input = Literal["detected", "gt"]


class PoseDataModule(ResumableDataModule[PoseInfo]):
    """Clips of 2-D joints with 3-D poses.

    A batch; the last eight rows in evaluation only:

    | key       | type      | shape         | meaning                                              |
    |-----------|-----------|---------------|------------------------------------------------------|
    | keypoints | float32   | (B, T, 17, F) | x, y in halves of the image's width from its centre, |
    |           |           |               | confidence; with velocity also x and y of the step   |
    | pose      | float32   | (B, T, 17, 3) | label in the same unit                               |
    | size      | float64   | (B, 2)        | width and height of the image, pixels                |
    | source    | list[str] | B             | name of the video                                    |
    | index     | int64     | (B,)          | number of the clip in its split                      |
    | target    | float64   | (B, T, 17, 3) | truth in millimetres, root not subtracted            |
    | factor    | float64   | (B, T)        | millimetres per pixel                                |
    | frame     | int64     | (B, T)        | number of the frame in the split                     |
    | group     | int64     | (B,)          | action or sequence, a place in `info.groups`         |
    | scored    | bool      | (B, T)        | which frames count                                   |

    Predictions in millimetres are denormalise(prediction, size) * factor, less their root. With
    `add_velocity` a batch has T - 1 frames. Training drops the last incomplete batch; evaluation
    sees each clip once on any number of processes. `test` and `predict` see what `validate` sees.

    Args:
        root: Folder or file of the data set; null for the embedded one.
        num_frames: Frames of a clip, T.
        train_stride: Frames from one training clip to the next.
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

    skeleton: Skeleton

    def __init__(
        self,
        root: str | None,
        num_frames: int,
        train_stride: int,
        input: Input,  # noqa: A002  the name of the option
        root_relative: bool,
        add_velocity: bool,
        augment: PoseAugment,
        batch_size: int,
        val_batch_size: int | None,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__(num_workers, pin_memory)
        for name, value in (("num_frames", num_frames), ("train_stride", train_stride)):
            if value < 1 + (name == "num_frames" and add_velocity):
                raise SuiteError(
                    expected="at least one frame, and two with add_velocity",
                    found=str(value),
                    where=f"data.init_args.{name}",
                    cure="correct it",
                )
        self.root = root
        self.num_frames, self.train_stride = num_frames, train_stride
        self.input: Input = input
        self.root_relative, self.add_velocity = root_relative, add_velocity
        self.augment = augment
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size or batch_size
        self._train: Reader | None = None
        self._eval: ClipReader | None = None

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Opens the files; sets `_train`, `_eval` and `_info`."""

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented clips in batches of equal size."""
        assert self._train is not None, "setup('fit') opens the training clips"
        transform = self._transform(self.augment)
        return self._train_loader(self._train, transform, self.batch_size, "clips")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every evaluation clip once, in order."""
        assert self._eval is not None, "setup opens the evaluation clips"
        transform = self._transform(NO_AUGMENT)
        return self._eval_loader(self._eval, transform, self.val_batch_size, "clips")

    def _common_info(self) -> dict[str, Any]:
        """Facts that do not depend on the data set."""
        assert self._eval is not None
        return {
            "batch_size": self.batch_size,
            "synthetic": self.root is None,
            "num_frames": self.num_frames - self.add_velocity,
            "frames": len(self._eval.split),
            "groups": self._eval.split.groups,
            "input": self.input,
            "in_features": 5 if self.add_velocity else 3,
            "root_relative": self.root_relative,
            "num_train": 0 if self._train is None else len(self._train),
            "num_eval": len(self._eval),
        }

    def _transform(self, augment: PoseAugment) -> ClipTransform:
        return ClipTransform(
            self.skeleton, self.input, self.root_relative, self.add_velocity, augment
        )
