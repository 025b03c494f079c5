"""Vision: image classification with Vim on ImageNet, on digits, on a folder of your own."""

from lightning_modules.vision.image_classification import ImageClassification
from lightning_modules.vision.mixing import Mixing
from lightning_modules.vision.networks.vision_mamba import VisionMamba
from lightning_modules.vision.pictures import ClassificationPictures
from lightning_modules.vision.predictions import PredictionTable

__all__ = [
    "ClassificationPictures",
    "ImageClassification",
    "Mixing",
    "PredictionTable",
    "VisionMamba",
]
