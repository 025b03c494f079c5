"""Vision: image classification with Vim on ImageNet, on digits, on a folder of your own."""

from lightning_modules.vision.image_classification import ImageClassification
from lightning_modules.vision.mixing import Mixing
from lightning_modules.vision.networks.feature_pyramid import FeaturePyramid
from lightning_modules.vision.networks.gated_attention_encoder import GatedAttentionEncoder
from lightning_modules.vision.networks.isotropic_ss2d import IsotropicSS2D
from lightning_modules.vision.networks.legacy_vit import LegacyViT
from lightning_modules.vision.networks.timm_network import timm_network
from lightning_modules.vision.networks.trunk_classifier import TrunkClassifier
from lightning_modules.vision.networks.vision_mamba import VisionMamba
from lightning_modules.vision.networks.vmamba import VMamba
from lightning_modules.vision.per_class import PerClassTable
from lightning_modules.vision.pictures import ClassificationPictures
from lightning_modules.vision.predictions import PredictionTable
from lightning_modules.vision.retrieval.feature_file import FeatureFile
from lightning_modules.vision.retrieval.heads import BNNeckHead, FSRAHead
from lightning_modules.vision.retrieval.image_retrieval import ImageRetrieval, RetrievalLoss
from lightning_modules.vision.retrieval.metric import RetrievalMetric
from lightning_modules.vision.retrieval.pictures import RankedLists

__all__ = [
    "BNNeckHead",
    "ClassificationPictures",
    "FSRAHead",
    "FeatureFile",
    "FeaturePyramid",
    "GatedAttentionEncoder",
    "ImageClassification",
    "ImageRetrieval",
    "IsotropicSS2D",
    "LegacyViT",
    "Mixing",
    "PerClassTable",
    "PredictionTable",
    "RankedLists",
    "RetrievalLoss",
    "RetrievalMetric",
    "TrunkClassifier",
    "VMamba",
    "VisionMamba",
    "timm_network",
]
