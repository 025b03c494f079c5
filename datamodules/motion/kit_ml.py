"""KIT-ML: 3,911 clips of 21 joints with 6,278 captions (Plappert et al., 2016)."""

from typing import Literal

from blocks.geometry.motion_features import Mode
from blocks.geometry.motion_skeleton import KIT
from datamodules.motion.embedded_motion import Preset
from datamodules.motion.motion_datamodule import MotionDataModule
from datamodules.motion.samples import TOO_LONG


class KITMLDataModule(MotionDataModule):
    """KIT-ML at 12.5 frames a second, 251 features; the embedded set when no root is given.

    Batches are those of `MotionDataModule`. Some ids of the published lists have no file.

    Args:
        root: Folder of the data set (new_joint_vecs, texts, Mean.npy, ...); null for the embedded
            one.
        preset: Clips of the embedded set, each also mirrored: tiny 256, small 2,000, base 10,000.
        batch_size: Training samples per process and step; a smaller set is one batch.
        val_batch_size: Evaluation samples per process and step; null for `batch_size`.
        max_frames: Longest sample; longer ones are cut.
        too_long: Clips of so many frames or more are left out, as published; null keeps them.
        pad_to: Training batches end with their longest sample, or at `max_frames`.
        shorten: Take four frames less in one of three draws, as the loaders of T2M, MDM, MoMask.
        evaluation: `fixed`: first caption, from the first frame; `drawn`: as in training, by seed
            and `replication`.
        replication: Number of the evaluation, where it is drawn.
        mode: How features must have been extracted; null takes what the data says.
        evaluator_statistics: Folder with an evaluator's mean.npy and std.npy; null looks beside the
            data, and derives them (Std / 25) if there are none.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    skeleton = KIT

    def __init__(
        self,
        root: str | None = None,
        preset: Preset = "base",
        batch_size: int = 64,
        val_batch_size: int | None = None,
        max_frames: int = 196,
        too_long: int | None = TOO_LONG,
        pad_to: Literal["longest", "max_frames"] = "longest",
        shorten: bool = False,
        evaluation: Literal["fixed", "drawn"] = "fixed",
        replication: int = 0,
        mode: Mode | None = None,
        evaluator_statistics: str | None = None,
        num_workers: int = 4,
        pin_memory: bool = True,
    ) -> None:
        super().__init__(
            root,
            preset,
            batch_size,
            val_batch_size,
            max_frames,
            too_long,
            pad_to,
            shorten,
            evaluation,
            replication,
            mode,
            evaluator_statistics,
            num_workers,
            pin_memory,
        )
