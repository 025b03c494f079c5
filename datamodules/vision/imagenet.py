"""ImageNet, or any set of images in class folders, for classification."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from datamodules.info import digest
from datamodules.inspection import Progress, Remark, remark_of
from datamodules.resumable import ResumableDataModule
from datamodules.vision.digits import generate_digits
from datamodules.vision.image_conversion import Form, convert_images
from datamodules.vision.image_info import ImageInfo
from datamodules.vision.image_inspection import describe_images, validate_images
from datamodules.vision.image_reader import UNKNOWN, FileSource, ImageReader, Item, find_images
from datamodules.vision.imagenet_layouts import INDEXED, LayoutName, detect_layout, read_layout
from datamodules.vision.layouts.request import LabelledImages, Rank, Request, nothing
from datamodules.vision.real_labels import real_labels_of
from datamodules.vision.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    Interpolation,
    OnImage,
    eval_transform,
    train_transform,
)

Batch = dict[str, Any]

_VIM_RECIPE = Augment()


class ImageNetDataModule(ResumableDataModule[ImageInfo]):
    """Labelled images in ImageNet's layouts; the embedded digits when no root is given.

    A batch, in all stages (`real_labels` only in evaluation, and only when asked for):

    | key         | type      | shape        | meaning                                           |
    |-------------|-----------|--------------|---------------------------------------------------|
    | image       | float32   | (B, 3, H, W) | RGB, minus mean, divided by std                   |
    | label       | int64     | (B,)         | class index; -1 where unknown                     |
    | path        | list[str] | B            | file, or archive and name in it                   |
    | index       | int64     | (B,)         | place in the split: files by path, rows in order  |
    | real_labels | int64     | (B, R)       | all classes that the image shows, then -1; only   |
    |             |           |              | -1 where nobody knows                             |

    Training drops the last incomplete batch; evaluation sees every image once, on any number of
    processes. `test` uses the validation images, for the labels of ImageNet's test set are secret.

    Args:
        root: Folder of the data set; null for the embedded digits (1,797 images, ten classes).
        img_size: Side, or [height, width], of the network's input in pixels.
        batch_size: Training images per process and step; a smaller set is one batch, with a
            warning.
        val_batch_size: Evaluation images per process and step; null for `batch_size`.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        layout: How the files lie. `folder`: class folders in both splits; `flat`: validation images
            in one folder with a label text file; `devkit`: with ILSVRC 2012's development kit;
            `kaggle`: ILSVRC/Data/CLS-LOC; `tars`: ILSVRC 2012's archives, not unpacked; `shards`:
            WebDataset archives; `parquet`: a hub's tables; `cifar100`, `inat2018`, `inat2019`;
            `auto`: look.
        train_files: Brace or glob pattern of the training shards or tables below `root`, such as
            imagenet1k-train-{0000..1023}.tar; null for those with train in their name.
        val_files: The same of the validation shards or tables.
        strict_classes: Refuse class folders that are empty, or missing among the validation images.
        inat_rank: What the classes of iNaturalist are.
        real_labels: Adds ReaL's reassessed labels (arXiv 2006.07159) to validation images, which
            must be those of ILSVRC 2012.
        augment: Augmentation of training images.
        repeated_aug: Copies of each drawn training image, each with its own augmentation: 3 in
            DeiT's and Vim's recipe on several devices, 1 for none. Unlike upstream, it also acts
            on a single device.
        crop_pct: Part of the resized image, per side, that evaluation crops from its centre.
        interpolation: Resampling filter of evaluation; that of training is among `augment`.
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
        layout: LayoutName | Literal["auto"] = "auto",
        train_files: str | None = None,
        val_files: str | None = None,
        strict_classes: bool = True,
        inat_rank: Rank = "name",
        real_labels: bool = False,
        augment: Augment = _VIM_RECIPE,
        repeated_aug: int = 1,
        crop_pct: float = 0.875,
        interpolation: Interpolation = "bicubic",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        predict_root: str | None = None,
        pin_memory: bool = True,
    ) -> None:
        super().__init__(num_workers, pin_memory)
        self.root = root
        self.img_size = img_size
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size or batch_size
        self.layout = layout
        self.train_files, self.val_files = train_files, val_files
        self.strict_classes = strict_classes
        self.inat_rank = inat_rank
        self.real_labels = real_labels
        self.augment = augment
        self.repeated_aug = repeated_aug
        self.crop_pct = crop_pct
        self.interpolation = interpolation
        self.mean = mean
        self.std = std
        self.predict_root = predict_root

    def prepare_data(self) -> None:
        """Writes the embedded digits, or the index of archives, into the cache."""
        if self.root is None:
            generate_digits()
            return
        layout = self.layout if self.layout != "auto" else detect_layout(Path(self.root))
        if layout in INDEXED:
            read_layout(self.request(train=True, complain=lambda _: None), layout)

    def setup(self, stage: str) -> None:
        """Lists the images that the stage needs.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.
        """
        if stage == "predict" and self.predict_root is not None:
            root = Path(self.predict_root)
            images = LabelledImages((), train=nothing(), val=_unlabelled(root))
        else:
            request = self.request(train=stage == "fit")
            root, images = request.root, read_layout(request, self._layout())
        if stage == "fit":
            self._train = ImageReader(images.train)
        extras = {}
        if self.real_labels and images.class_names:
            extras["real_labels"] = real_labels_of(images.val, len(images.class_names))
        self._eval = ImageReader(images.val, extras)
        self._info = self._describe(root, images)

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts about the data set: where and how it lies, classes, counts, image sizes."""
        request = self.request(train=True)
        layout = self.layout if self.layout != "auto" else detect_layout(request.root)
        images = read_layout(request, layout)
        return {
            "root": str(request.root) + (" (embedded)" if self.root is None else ""),
            "layout": layout,
            **describe_images(images),
            "digest of the file list": self._describe(request.root, images).hash,
        }

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Reads the images as training would and yields what is wrong, as it is found.

        Args:
            sample: Images of each split to read at most; null reads all, in `num_workers`
                processes.
        """
        errors: list[SuiteError] = []
        images = None
        try:
            request = self.request(train=True, complain=errors.append)
            images = read_layout(request, self._layout())
            if self.real_labels:
                real_labels_of(images.val, len(images.class_names))
        except SuiteError as error:
            errors.append(error)
        yield from map(remark_of, errors)
        if images is not None:
            yield from validate_images(images, sample, self.num_workers)

    def convert(self, to: Path, form: Form = "shards") -> Iterator[Path | Progress]:
        """Writes the data set as archives, which network disks read far faster than small files.

        Args:
            to: Folder to write to; an interrupted call goes on there.
            form: `shards` (WebDataset) or `parquet`.
        """
        images = read_layout(self.request(train=True), self._layout())
        return convert_images(images, to, form)

    def request(self, train: bool, complain: Callable[[SuiteError], None] | None = None) -> Request:
        """What is asked of the layout's reader.

        Args:
            train: Whether to list training images too.
            complain: Hears what is wrong with the files; null raises it.
        """
        asked = Request(
            root=Path(self.root) if self.root is not None else generate_digits(),
            train=train,
            train_files=self.train_files,
            val_files=self.val_files,
            strict_classes=self.strict_classes,
            rank=self.inat_rank,
        )
        return asked if complain is None else replace(asked, complain=complain)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented batches of equal size."""
        if self.augment.policy == "none":
            transform = self._eval_transform()
        else:
            transform = train_transform(self.augment, self.img_size, self.mean, self.std)
        return self._train_loader(
            self._train,
            OnImage(transform),
            self.batch_size,
            "images",
            repeats=self.repeated_aug,
            even=True,  # Mixup pairs the images of a batch.
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation image once, in order."""
        transform = OnImage(self._eval_transform())
        return self._eval_loader(self._eval, transform, self.val_batch_size, "images")

    def _eval_transform(self) -> Callable[..., torch.Tensor]:
        return eval_transform(self.img_size, self.crop_pct, self.mean, self.std, self.interpolation)

    def _layout(self) -> LayoutName | Literal["auto"]:
        """The embedded digits are a folder, whatever layout is asked for."""
        return self.layout if self.root is not None else "folder"

    def _describe(self, root: Path, images: LabelledImages) -> ImageInfo:
        start = len(str(root)) + 1
        names = (
            f"{label} {source.name(index)[start:].replace(os.sep, '/')}"
            for source in (images.train, images.val)
            for index, label in enumerate(source.labels.tolist())
        )
        return ImageInfo(
            batch_size=self.batch_size,
            protocol=f"{len(images.val)} images, centre crop {self.crop_pct} at {self.img_size} px",
            root=str(root),
            synthetic=self.root is None,
            hash=digest(names),
            class_names=images.class_names,
            img_size=self.img_size,
            mean=self.mean,
            std=self.std,
            num_train=len(images.train),
            num_val=len(images.val),
        )


def _unlabelled(root: Path) -> FileSource:
    items = [Item(path, UNKNOWN) for path in find_images(root)]
    if not items:
        raise SuiteError(
            expected="a folder with images",
            found="none in it or below it" if root.is_dir() else "no such folder",
            where=str(root),
            cure="correct data.init_args.predict_root, or set it to null for the validation images",
        )
    return FileSource(items)
