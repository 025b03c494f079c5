"""Pictures go to the loggers that take pictures, and past those that do not."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from lightning_modules.media import log_media


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_tensorboard_gets_the_pixels_of_any_kind_of_image(tmp_path: Path, mode: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (5, 3), (200, 0, 0)).convert(mode).save(tmp_path / "a.png")
    loggers = [CSVLogger(tmp_path, "", ""), TensorBoardLogger(tmp_path, "board", "")]
    log_media(Trainer(logger=loggers, accelerator="cpu"), "val/a", tmp_path / "a.png")
    loggers[1].finalize("success")
    (image,) = EventAccumulator(str(tmp_path / "board")).Reload().Images("val/a")
    assert (image.width, image.height) == (5, 3)
    assert not (tmp_path / "metrics.csv").exists()


def test_without_a_logger_nothing_happens(tmp_path: Path) -> None:
    log_media(Trainer(logger=False, accelerator="cpu"), "val/a", tmp_path / "absent.png")
