"""Human pose: lifting 2-D keypoints to 3-D on Human3.6M and MPI-INF-3DHP."""

from lightning_modules.pose.networks.hybrid import HybridLifter
from lightning_modules.pose.networks.mamba_gcn_former import MambaGCNFormer
from lightning_modules.pose.networks.motion_agformer import MotionAGFormer
from lightning_modules.pose.networks.posemamba import PoseMamba

__all__ = ["HybridLifter", "MambaGCNFormer", "MotionAGFormer", "PoseMamba"]
