"""Motion with captions: HumanML3D, KIT-ML, and captions of your own."""

from datamodules.motion.humanml3d import HumanML3DDataModule
from datamodules.motion.kit_ml import KITMLDataModule
from datamodules.motion.motion_info import MotionInfo
from datamodules.motion.prompts import PromptsDataModule

__all__ = [
    "HumanML3DDataModule",
    "KITMLDataModule",
    "MotionInfo",
    "PromptsDataModule",
]
