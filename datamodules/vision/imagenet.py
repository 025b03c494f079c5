"""ImageNet, or any set of images in class folders, for classification."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from datamodules.info import digest
from datamodules.resumable import ResumableDataModule
from datamodules.sampling import EvalSampler, SeededDataset, TrainSampler, global_seed
from datamodules.vision.digits import generate_digits
from datamodules.vision.image_info import ImageInfo
from datamodules.vision.image_reader import UNKNOWN, ImageReader, Item, find_images
from datamodules.vision.imagenet_layouts import LabelledFiles, read_layout
from datamodules.vision.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    OnImage,
    eval_transform,
    train_transform,
)

Batch = dict[str, Any]

_VIM_RECIPE = Augment()


class ImageNetDataModule(ResumableDataModule):
    """Labelled images in ImageNet's layouts; the embedded digits when no root is given.

    A batch, in all stages:

    | key   | type      | shape        | meaning                                       |
    |-------|-----------|--------------|-----------------------------------------------|
    | image | float32   | (B, 3, H, W) | RGB, minus mean, divided by std               |
    | label | int64     | (B,)         | class index; -1 where unknown                 |
    | path  | list[str] | B            | file                                          |
    | index | int64     | (B,)         | place among the split's files, sorted by path |

    Training drops the last incomplete batch; evaluation sees every image once, on any number of
    processes. `test` uses the validation images, for the labels of ImageNet's test set are secret.

    Args:
        root: Folder that holds `train` and `val`; null for the embedded digits (1,797 images, ten
            classes).
        img_size: Side, or [height, width], of the network's input in pixels.
        batch_size: Training images per process and step; a smaller set is one batch, with a
            warning.
        val_batch_size: Evaluation images per process and step; null for `batch_size`.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        layout: How the files lie: class folders in both splits; a flat validation folder with a
            label text file; the same with the ILSVRC 2012 development kit; or look.
        augment: Augmentation of training images.
        repeated_aug: Copies of each drawn training image, each with its own augmentation: 3 in
            DeiT's and Vim's recipe on several devices, 1 for none. Unlike upstream, it also acts
            on a single device.
        crop_pct: Part of the resized image, per side, that evaluation crops from its centre.
        mean: Channel means to subtract, in units of [0, 1].
        std: Channel deviations to divide by, same units.
        predict_root: Folder of images to predict, searched with its subfolders; null predicts the
            validation images.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    def __init__(
        self,
        root: str | None = None,
        img_size: int | tuple[int, int] = 224,
        batch_size: int = 128,
        val_batch_size: int | None = None,
        num_workers: int = 4,
        layout: Literal["auto", "folder", "flat", "devkit"] = "auto",
        augment: Augment = _VIM_RECIPE,
        repeated_aug: int = 1,
        crop_pct: float = 0.875,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        predict_root: str | None = None,
        pin_memory: bool = True,
    ) -> None:
        super().__init__()
        self.root = root
        self.img_size = img_size
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size or batch_size
        self.num_workers = num_workers
        self.layout = layout
        self.augment = augment
        self.repeated_aug = repeated_aug
        self.crop_pct = crop_pct
        self.mean = mean
        self.std = std
        self.predict_root = predict_root
        self.pin_memory = pin_memory
        self._info: ImageInfo | None = None

    @property
    def info(self) -> ImageInfo:
        """Facts about the data of the current stage."""
        if self._info is None:
            raise SuiteError(
                expected="a datamodule that knows its data",
                found="info asked for before setup",
                where=type(self).__name__,
                cure="call prepare_data() and setup('fit') first, or let a Trainer do it",
            )
        return self._info

    def prepare_data(self) -> None:
        """Writes the embedded digits into the cache when they are asked for."""
        if self.root is None:
            generate_digits()

    def setup(self, stage: str) -> None:
        """Lists the files that the stage needs.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.
        """
        if stage == "predict" and self.predict_root is not None:
            root = Path(self.predict_root)
            files = LabelledFiles((), train=[], val=_unlabelled(root))
        else:
            root = Path(self.root) if self.root is not None else generate_digits()
            files = read_layout(root, self.layout, train=stage == "fit")
        if stage == "fit":
            self._train = ImageReader(files.train)
        self._eval = ImageReader(files.val)
        self._info = self._describe(root, files)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented batches of equal size."""
        rank, world = self._place()
        sampler = TrainSampler(
            len(self._train), seed=global_seed(), rank=rank, world=world, repeats=self.repeated_aug
        )
        batch_size = self.batch_size
        if len(sampler) < batch_size:
            # Even, for Mixup pairs the images of a batch.
            batch_size = max(len(sampler) // 2 * 2, 1)
            rank_zero_warn(
                f"The training set has {len(sampler)} images for each process, fewer than "
                f"batch_size {self.batch_size}: an epoch is one batch of {batch_size}. The "
                "learning rate keeps following batch_size."
            )
        if self.augment.policy == "none":
            transform = self._eval_transform()
        else:
            transform = train_transform(self.augment, self.img_size, self.mean, self.std)
        sampler = self.resumed(sampler, batch_size)
        return self._loader(self._train, transform, sampler, batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation image once, in order."""
        rank, world = self._place()
        if len(self._eval) < world:
            # A process without a batch would skip the loop in which the others wait for it.
            raise SuiteError(
                expected=f"at least one image for each of {world} processes",
                found=f"{len(self._eval)} images",
                where=self.info.root,
                cure="evaluate on fewer devices",
            )
        sampler = EvalSampler(len(self._eval), rank=rank, world=world)
        return self._loader(self._eval, self._eval_transform(), sampler, self.val_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The validation images."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The images below `predict_root`, or the validation images."""
        return self.val_dataloader()

    def _loader(
        self,
        reader: ImageReader,
        transform: Callable[..., torch.Tensor],
        sampler: TrainSampler | EvalSampler,
        batch_size: int,
        drop_last: bool = False,
    ) -> DataLoader[Batch]:
        return DataLoader(
            SeededDataset(reader, OnImage(transform), global_seed()),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=drop_last,
            pin_memory=self.pin_memory and torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def _eval_transform(self) -> Callable[..., torch.Tensor]:
        return eval_transform(self.img_size, self.crop_pct, self.mean, self.std)

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes; a datamodule without a Trainer is alone."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _describe(self, root: Path, files: LabelledFiles) -> ImageInfo:
        names = (
            f"{label} {Path(path).relative_to(root).as_posix()}"
            for path, label in files.train + files.val
        )
        return ImageInfo(
            batch_size=self.batch_size,
            protocol=f"{len(files.val)} images, centre crop {self.crop_pct} at {self.img_size} px",
            root=str(root),
            synthetic=self.root is None,
            hash=digest(names),
            class_names=files.class_names,
            img_size=self.img_size,
            mean=self.mean,
            std=self.std,
            num_train=len(files.train),
            num_val=len(files.val),
        )


def _unlabelled(root: Path) -> list[Item]:
    items = [Item(path, UNKNOWN) for path in find_images(root)]
    if not items:
        raise SuiteError(
            expected="a folder with images",
            found="none in it or below it" if root.is_dir() else "no such folder",
            where=str(root),
            cure="correct data.init_args.predict_root, or set it to null for the validation images",
        )
    return items
