"""ScanNet200-SV: single RGB-D frames with instance masks."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from blocks.errors import SuiteError
from datamodules.info import digest
from datamodules.inspection import Progress, Remark
from datamodules.scannet import sv_layout as layout
from datamodules.scannet.classes import CLASS_IDS, THINGS
from datamodules.scannet.embedded_sv import HASH, Preset, generate_sv
from datamodules.scannet.inspection import describe_samples, validate_samples
from datamodules.scannet.scannet_datamodule import ScanNetDataModule
from datamodules.scannet.scannet_info import CLASS_NAMES, GROUPS, ScanNetInfo
from datamodules.scannet.sv_files import SVEntry, SVReader, list_frames, pose_of
from datamodules.scannet.sv_layout import Split
from datamodules.scannet.transforms import PointAugment, clip_size

_RECIPE = PointAugment()
_SPLITS: tuple[Split, ...] = ("train", "val")


class ScanNet200SVDataModule(ScanNetDataModule):
    """Single RGB-D frames of ScanNet200 in the layout of ESAM; embedded rooms without a root.

    Batches are those of `ScanNetDataModule`.

    Args:
        root: Folder of ScanNet200-SV; null for the embedded rooms, which are rendered on first use.
            ESAM-E is the same layout with other superpoints.
        preset: Size of the embedded data: tiny 48 + 16 frames of 6,000 points, small 64 + 16 and
            base 256 + 64 frames of 20,000.
        image: Whether batches have images.
        image_height: Height of the images for CLIP; the width keeps the aspect to 16 pixels.
        color: Whether points have their colour.
        augment: Augmentation of training frames.
        batch_size: Training frames per process and step; a smaller set is one batch, with a
            warning.
        val_batch_size: Evaluation frames per process and step; null for `batch_size`.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    def __init__(
        self,
        root: str | None = None,
        preset: Preset = "small",
        image: bool = True,
        image_height: int = 224,
        color: bool = True,
        augment: PointAugment = _RECIPE,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int = 4,
        pin_memory: bool = True,
    ) -> None:
        super().__init__(
            root,
            image,
            image_height,
            color,
            augment,
            batch_size,
            val_batch_size,
            num_workers,
            pin_memory,
        )
        self.preset: Preset = preset

    def prepare_data(self) -> None:
        """Renders the embedded rooms."""
        self._home()

    def setup(self, stage: str) -> None:
        """Lists the frames; reads none.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            SuiteError: Files are missing or broken.
        """
        home = self._home()
        splits = _SPLITS if stage == "fit" else _SPLITS[1:]
        found = {split: usable(home, split) for split in splits}
        left_out = sum(lost for _, lost in found.values())
        if left_out:
            rank_zero_warn(f"{left_out} frames of {home} have no finite pose and are left out.")
        self._train = SVReader(home, found["train"][0], self.image) if stage == "fit" else None
        self._eval = SVReader(home, found["val"][0], self.image)
        entries = {split: part for split, (part, _) in found.items()}
        self._info = self._facts(home, entries, left_out)

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts: frames, points, labels, superpoints and what they allow."""
        home = self._home()
        facts: dict[str, str | int | float] = {
            "root": str(home) + (" (embedded, synthetic)" if self.root is None else ""),
            "superpoints": f"{home.name}/{layout.SUPERPOINTS}",
        }
        left_out = sum(usable(home, split)[1] for split in _SPLITS)
        readers = {s: SVReader(home, usable(home, s)[0], image=False) for s in _SPLITS}
        return facts | describe_samples(readers) | {"frames without a finite pose": left_out}

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Reads the frames and yields what is wrong, as it is found.

        Args:
            sample: Frames of each split to read at most; null reads all.
        """
        home = self._home()

        def opened(split: Split) -> SVReader:
            return SVReader(home, list_frames(home, split), self.image)

        return validate_samples(opened, sample, one_frame=True)

    def _home(self) -> Path:
        return generate_sv(self.preset) if self.root is None else Path(self.root)

    def _facts(self, home: Path, entries: dict[Split, list[SVEntry]], left_out: int) -> ScanNetInfo:
        count = len(entries["val"])
        protocol = f"sv, {count} single frames, superpoints of {home.name}"
        if self.root is None:
            protocol = f"synthetic ({self.preset}) {protocol}"
        lines = [f"{split} {entry.name}" for split, part in entries.items() for entry in part]
        if (content := home / HASH).is_file():
            lines.append(content.read_text())
        return ScanNetInfo(
            batch_size=self.batch_size,
            protocol=protocol,
            root=str(home),
            synthetic=self.root is None,
            hash=digest(lines),
            view="sv",
            class_names=CLASS_NAMES,
            class_ids=CLASS_IDS,
            class_groups=GROUPS,
            things=THINGS,
            superpoints=f"{home.name}/{layout.SUPERPOINTS}",
            image=self.image,
            image_size=clip_size(*layout.IMAGE_SIZE, self.image_height) if self.image else (0, 0),
            color=self.color,
            num_train=len(entries.get("train", [])),
            num_eval=count,
            left_out=left_out,
        )


def usable(root: Path, split: Split) -> tuple[list[SVEntry], int]:
    """The frames of a split whose pose is finite, and how many others there are.

    Raises:
        SuiteError: There is none.
    """
    entries = list_frames(root, split)
    kept = [entry for entry in entries if np.isfinite(pose_of(root, entry)).all()]
    if not kept:
        raise SuiteError(
            expected=f"{split} frames with a pose",
            found=f"{len(entries)} frames, none with a finite pose in the list or "
            f"{layout.POSES}/ below",
            where=str(root),
            cure="copy pose_centered/ too, or the .pkl lists, which have the poses",
        )
    return kept, len(entries) - len(kept)
