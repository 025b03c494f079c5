"""Human pose: lifting 2-D keypoints to 3-D on Human3.6M and MPI-INF-3DHP."""

from lightning_modules.pose.losses import PoseLoss
from lightning_modules.pose.networks.hybrid import HybridLifter
from lightning_modules.pose.networks.mamba_gcn_former import MambaGCNFormer
from lightning_modules.pose.networks.motion_agformer import MotionAGFormer
from lightning_modules.pose.networks.posemamba import PoseMamba
from lightning_modules.pose.pose_lifting import PoseLifting
from lightning_modules.pose.score_tables import PoseScoreTables

__all__ = [
    "HybridLifter",
    "MambaGCNFormer",
    "MotionAGFormer",
    "PoseLifting",
    "PoseLoss",
    "PoseMamba",
    "PoseScoreTables",
]
