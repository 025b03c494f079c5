"""Motion from text: diffusion on HumanML3D and KIT-ML, and the evaluators that judge it."""

from lightning_modules.motion.architecture_print import CMDMArchitecture
from lightning_modules.motion.evaluator_writer import EvaluatorWriter
from lightning_modules.motion.generation_evaluation import GenerationEvaluation
from lightning_modules.motion.generation_round import GenerationProtocol
from lightning_modules.motion.motion_evaluation import MotionEvaluatorTraining
from lightning_modules.motion.motion_files import MotionFiles
from lightning_modules.motion.motion_pictures import MotionPictures
from lightning_modules.motion.movement_autoencoding import MovementAutoencoding, MovementFile
from lightning_modules.motion.networks.adaln_bimamba import AdaLNBiMamba
from lightning_modules.motion.networks.cmdm import CMDM
from lightning_modules.motion.networks.mdm import MDM
from lightning_modules.motion.networks.motion_evaluator import MotionEvaluator
from lightning_modules.motion.networks.movement_autoencoder import MovementAutoencoder
from lightning_modules.motion.networks.trunk_denoiser import TrunkDenoiser
from lightning_modules.motion.sampling import MotionSampler
from lightning_modules.motion.shuffled_captions import ShuffledCaptions
from lightning_modules.motion.text_encoders.bert_text import BERTText
from lightning_modules.motion.text_encoders.cached import CachedText, TextCacheWriter
from lightning_modules.motion.text_encoders.clip_text import CLIPText
from lightning_modules.motion.text_encoders.embedded import EmbeddedText
from lightning_modules.motion.text_to_motion import TextToMotion

__all__ = [
    "AdaLNBiMamba",
    "BERTText",
    "CLIPText",
    "CMDM",
    "CMDMArchitecture",
    "CachedText",
    "EmbeddedText",
    "EvaluatorWriter",
    "GenerationEvaluation",
    "GenerationProtocol",
    "MDM",
    "MotionEvaluator",
    "MotionEvaluatorTraining",
    "MotionFiles",
    "MotionPictures",
    "MotionSampler",
    "MovementAutoencoder",
    "MovementAutoencoding",
    "MovementFile",
    "ShuffledCaptions",
    "TextCacheWriter",
    "TextToMotion",
    "TrunkDenoiser",
]
