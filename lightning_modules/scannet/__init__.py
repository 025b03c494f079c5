"""ScanNet200: instance segmentation of a room from points and an image."""

from lightning_modules.scannet.consistency import Consistency
from lightning_modules.scannet.criterion import InstanceLoss
from lightning_modules.scannet.empty_cache import EmptyCache
from lightning_modules.scannet.fusion_schedule import StageWeights
from lightning_modules.scannet.instance_files import InstanceFiles
from lightning_modules.scannet.instance_pictures import InstancePictures
from lightning_modules.scannet.instance_segmentation import InstanceSegmentation
from lightning_modules.scannet.instances import Inference, Instances
from lightning_modules.scannet.networks.bifusion import BiFusion
from lightning_modules.scannet.networks.clip_trunk import CLIPTrunk
from lightning_modules.scannet.networks.query_decoder import QueryDecoder
from lightning_modules.scannet.networks.res16unet import Res16UNet34C
from lightning_modules.scannet.networks.segmenter import InstanceSegmenter
from lightning_modules.scannet.networks.serialized_mamba_unet import SerializedMambaUNet
from lightning_modules.scannet.partial_load import PartialLoad
from lightning_modules.scannet.score_table import ClassScoreTable
from lightning_modules.scannet.submission import ScanNetSubmission

__all__ = [
    "BiFusion",
    "CLIPTrunk",
    "ClassScoreTable",
    "Consistency",
    "EmptyCache",
    "Inference",
    "InstanceFiles",
    "InstanceLoss",
    "InstancePictures",
    "InstanceSegmentation",
    "InstanceSegmenter",
    "Instances",
    "PartialLoad",
    "QueryDecoder",
    "Res16UNet34C",
    "ScanNetSubmission",
    "SerializedMambaUNet",
    "StageWeights",
]
