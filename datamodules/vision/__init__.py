"""Images: classification data, its on-disk layouts and its augmentation."""

from datamodules.vision.image_info import ImageInfo
from datamodules.vision.imagenet import ImageNetDataModule
from datamodules.vision.retrieval.augment import RetrievalAugment
from datamodules.vision.retrieval.datamodule import RetrievalDataModule
from datamodules.vision.retrieval.info import RetrievalInfo
from datamodules.vision.transforms import Augment

__all__ = [
    "Augment",
    "ImageInfo",
    "ImageNetDataModule",
    "RetrievalAugment",
    "RetrievalDataModule",
    "RetrievalInfo",
]
