"""Human pose: lifting 2-D keypoints to 3-D on Human3.6M and MPI-INF-3DHP."""

from lightning_modules.pose.losses import PoseLoss
from lightning_modules.pose.networks.hybrid import HybridLifter
from lightning_modules.pose.networks.mamba_gcn_former import MambaGCNFormer
from lightning_modules.pose.networks.motion_agformer import MotionAGFormer
from lightning_modules.pose.networks.posemamba import PoseMamba
from lightning_modules.pose.networks.trunk_lifter import TrunkLifter
from lightning_modules.pose.pose_files import PoseFiles
from lightning_modules.pose.pose_lifting import PoseLifting
from lightning_modules.pose.pose_pictures import PosePictures
from lightning_modules.pose.score_tables import PoseScoreTables
from lightning_modules.pose.streaming import StreamingLifter

__all__ = [
    "HybridLifter",
    "MambaGCNFormer",
    "MotionAGFormer",
    "PoseFiles",
    "PoseLifting",
    "PoseLoss",
    "PoseMamba",
    "PosePictures",
    "PoseScoreTables",
    "StreamingLifter",
    "TrunkLifter",
]
