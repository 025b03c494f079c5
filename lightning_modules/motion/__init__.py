"""Motion from text: diffusion on HumanML3D and KIT-ML, and the evaluators that judge it."""

from lightning_modules.motion.networks.cmdm import CMDM
from lightning_modules.motion.networks.motion_evaluator import MotionEvaluator

__all__ = ["CMDM", "MotionEvaluator"]
