"""HumanML3D: 29,228 clips of 22 joints with 44,970 captions (Guo et al., 2022)."""

from pathlib import Path
from typing import Literal

from blocks.errors import SuiteError
from blocks.geometry.motion_features import Mode
from blocks.geometry.motion_skeleton import HUMANML3D
from datamodules.motion.contact_maps import Contacts, Scene
from datamodules.motion.embedded_motion import Preset
from datamodules.motion.motion_datamodule import MotionDataModule
from datamodules.motion.samples import TOO_LONG


class HumanML3DDataModule(MotionDataModule):
    """HumanML3D at 20 frames a second, 263 features; the embedded set when no root is given.

    Batches are those of `MotionDataModule`.

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
        contacts: `floor`: a patch of floor under each motion; `files`: contacts/<id>.npz; `none`.
        num_points: Points of a scene, at least 1,024 for the point encoder.
        contact_sigma: Width of a contact, metres.
        predicted_contacts: Folder with predicted maps <id>-<caption>.npy; null for the true ones.
        predicted_share: How often training takes a prediction; evaluation always does.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    skeleton = HUMANML3D

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
        contacts: Contacts = "none",
        num_points: int = 1024,
        contact_sigma: float = 0.8,
        predicted_contacts: str | None = None,
        predicted_share: float = 0.5,
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
        if predicted_contacts is not None and contacts != "files":
            raise SuiteError(
                expected="contacts: files, whose points the predictions are about",
                found=f"contacts: {contacts}",
                where="data.init_args.predicted_contacts",
                cure="set data.init_args.contacts: files, or leave the predictions out",
            )
        self.contacts = contacts
        if contacts != "none":
            predicted = None if predicted_contacts is None else Path(predicted_contacts)
            self.scene = Scene(contacts, num_points, contact_sigma, predicted, predicted_share)
