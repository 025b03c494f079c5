"""Pictures for whatever logger is on; the files themselves are in the run directory anyway."""

from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image


@rank_zero_only
def log_media(trainer: Trainer, name: str, path: Path) -> None:
    """Sends a picture to W&B and TensorBoard; loggers without pictures are passed over.

    Args:
        trainer: Its loggers and its step are used.
        name: Where the picture appears, such as `val/grid`.
        path: An image file that is complete.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [str(path)], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")
