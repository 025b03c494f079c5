"""Pictures, films and clouds of points for whatever logger is on; the files are there anyway."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

_FILMS = (".gif", ".mp4")


@rank_zero_only
def log_media(trainer: Trainer, name: str, path: Path) -> None:
    """Sends a picture to W&B and TensorBoard; loggers without pictures are passed over.

    W&B takes films and pages, too.

    Args:
        trainer: Its loggers and its step are used.
        name: Where the picture appears, such as `val/grid`.
        path: An image, .gif, .mp4 or .html that is complete.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            if path.suffix in _FILMS:
                logger.log_video(name, [str(path)], step=trainer.global_step)
            elif path.suffix == ".html":
                import wandb

                page = wandb.Html(path.read_text(encoding="utf-8"), inject=False)
                logger.experiment.log({name: page, "trainer/global_step": trainer.global_step})
            else:
                logger.log_image(name, [str(path)], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger) and path.suffix not in (*_FILMS, ".html"):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")


@rank_zero_only
def log_points(trainer: Trainer, name: str, points: npt.NDArray[Any]) -> None:
    """Sends a cloud of points to W&B, which can turn it; other loggers are passed over.

    Args:
        trainer: Its loggers and its step are used.
        name: Where the cloud appears, such as `val/scene0000_00/input`.
        points: x, y, z and red, green, blue in 0..255 of each point, (P, 6).
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            logger.experiment.log({name: wandb.Object3D(points)})
