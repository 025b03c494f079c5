"""Human pose: 2-D joints with 3-D poses, from Human3.6M and MPI-INF-3DHP."""

from datamodules.pose.human36m import Human36MDataModule
from datamodules.pose.keypoints import KeypointsDataModule
from datamodules.pose.mpi_inf_3dhp import MPIINF3DHPDataModule
from datamodules.pose.pose_info import PoseInfo
from datamodules.pose.transforms import PoseAugment

__all__ = [
    "Human36MDataModule",
    "KeypointsDataModule",
    "MPIINF3DHPDataModule",
    "PoseAugment",
    "PoseInfo",
]
