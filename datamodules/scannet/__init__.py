"""ScanNet200: points of RGB-D frames and scenes with instances, labels and superpoints."""

from datamodules.scannet.own_scans import OwnScansDataModule
from datamodules.scannet.scannet200_sv import ScanNet200SVDataModule
from datamodules.scannet.scannet_info import ScanNetInfo
from datamodules.scannet.scannet_scenes import PointceptDataModule, ScanNetScenesDataModule
from datamodules.scannet.transforms import PointAugment

__all__ = [
    "OwnScansDataModule",
    "PointAugment",
    "PointceptDataModule",
    "ScanNet200SVDataModule",
    "ScanNetInfo",
    "ScanNetScenesDataModule",
]
