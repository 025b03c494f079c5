"""Pictures go to the loggers that take pictures, and past those that do not."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from lightning_modules.media import log_media, log_points


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


def test_wandb_gets_a_cloud_and_others_do_not_mind(tmp_path: Path) -> None:
    import numpy as np
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    sent: list[dict[str, object]] = []

    class Offline(WandbLogger):
        def __init__(self) -> None:
            """Starts no run."""

        @property
        def experiment(self) -> object:
            return type("Run", (), {"log": staticmethod(sent.append)})

    loggers = [CSVLogger(tmp_path, "", ""), Offline()]
    points = np.array([[0.0, 1, 2, 255, 0, 0], [3, 4, 5, 0, 255, 0]])
    trainer = Trainer(logger=False, accelerator="cpu")
    trainer.loggers = loggers
    log_points(trainer, "val/a", points)
    (entry,) = sent
    cloud = entry["val/a"]
    assert isinstance(cloud, wandb.Object3D)
    # What is uploaded: rows of x, y, z and colours.
    assert np.array_equal(json.loads(Path(str(cloud._path)).read_text()), points)
