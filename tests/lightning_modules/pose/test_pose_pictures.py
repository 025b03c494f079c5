"""Pictures of a lifter: files that decode, clips from the whole split, errors that are right."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from PIL import Image

from blocks.errors import SuiteError
from datamodules.pose import Human36MDataModule
from datamodules.pose.h36m_pickle import FILE_NAME
from lightning_modules.optimization import Optimizer
from lightning_modules.pose import HybridLifter, PoseLifting, PosePictures
from lightning_modules.pose import pose_pictures as pictures_file
from lightning_modules.pose.pose_pictures import ShownClip, pose_figure, thinned


@pytest.fixture
def root(golden: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(golden / "pose" / "h36m_tiny.pkl", folder / FILE_NAME)
    return folder


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[list[ShownClip]]:
    """What the figures were made of."""
    seen: list[list[ShownClip]] = []

    def figure(clips: list[ShownClip], *rest: Any) -> Figure:
        seen.append(clips)
        return pose_figure(clips, *rest)

    monkeypatch.setattr(pictures_file, "pose_figure", figure)
    return seen


def run(
    folder: Path, root: Path, verb: str, callback: PosePictures | None = None, **options: Any
) -> tuple[PoseLifting, Human36MDataModule, Trainer]:
    given = Human36MDataModule(str(root), num_frames=9, batch_size=4, num_workers=0)
    torch.manual_seed(0)
    network = HybridLifter(depth=1, dim=8, d_inner=16, dim_rep=8)
    taught = PoseLifting(network, Optimizer(lr=1e-3, lr_scale_batch=None))
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[] if callback is None else [callback],
        **options,
    )
    getattr(trainer, verb)(taught, given, **({} if verb == "fit" else {"verbose": False}))
    return taught.eval(), given, trainer


def test_a_test_leaves_a_picture_and_a_page(
    tmp_path: Path, root: Path, shown: list[list[ShownClip]]
) -> None:
    taught, given, _ = run(tmp_path, root, "test", PosePictures(clips=3))
    with Image.open(tmp_path / "pictures" / "test_poses.png") as picture:
        picture.load()
        assert min(picture.size) > 400
    assert (tmp_path / "pictures" / "test_poses.gif").is_file()
    page = (tmp_path / "poses" / "test.html").read_text()
    (clips,) = shown
    assert len(clips) == 3
    assert all(f"{clip.source}, clip {clip.index}" in page for clip in clips)
    assert clips[-1].index > given.info.num_eval / 2  # From the whole split.
    by_index = {}
    for batch in given.val_dataloader():
        for i, index in enumerate(batch["index"].tolist()):
            by_index[index] = {key: value[i : i + 1] for key, value in batch.items()}
    for clip in clips:
        batch = by_index[clip.index]
        with torch.no_grad():
            pose = taught.millimetres(taught.rooted(taught(batch["keypoints"])), batch)[0]
        target = batch["target"][0]
        np.testing.assert_allclose(clip.prediction, pose - pose[:, :1], atol=1e-2)
        np.testing.assert_allclose(clip.truth, target - target[:, :1], atol=1e-3)
        assert clip.source == batch["source"][0]


def test_a_fit_draws_its_last_validation_and_nothing_before_its_time(
    tmp_path: Path, root: Path, shown: list[list[ShownClip]]
) -> None:
    options = {"max_epochs": 2, "limit_train_batches": 1}
    run(tmp_path, root, "fit", PosePictures(2, every_seconds=3600), **options)
    assert len(shown) == 1
    assert (tmp_path / "pictures" / "val_poses.png").is_file()
    assert "Clips of the validation" in (tmp_path / "poses" / "val.html").read_text()
    with Image.open(tmp_path / "pictures" / "val_poses.gif") as film:
        assert getattr(film, "n_frames", 1) == 9
        assert film.info["duration"] == pytest.approx(80, abs=10)  # Of 20 ms in life.
    run(tmp_path, root, "fit", PosePictures(2, every_seconds=0), **options)
    assert len(shown) == 1 + 3


def test_the_module_brings_its_pictures_and_a_dry_run_does_not(tmp_path: Path, root: Path) -> None:
    _, _, trainer = run(tmp_path, root, "validate")
    assert sum(isinstance(c, PosePictures) for c in trainer.callbacks) == 1
    assert (tmp_path / "pictures" / "val_poses.png").is_file()
    _, _, trainer = run(tmp_path / "dry", root, "fit", fast_dev_run=True)
    assert not any(isinstance(c, PosePictures) for c in trainer.callbacks)


def test_a_fit_without_validation_draws_nothing(tmp_path: Path, root: Path) -> None:
    run(tmp_path, root, "fit", max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    assert not (tmp_path / "pictures").exists() and not (tmp_path / "poses").exists()


def clip(index: int) -> ShownClip:
    empty = np.zeros((1, 17, 3), dtype=np.float32)
    return ShownClip(index, "a", empty[..., :2], empty, empty)


@pytest.mark.parametrize("count", [1, 5, 10, 11, 64, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_same_clips_are_kept_on_any_number_of_processes(count: int, processes: int) -> None:
    kept: list[ShownClip] = []
    for rank in range(processes):
        own: list[ShownClip] = []
        stride = 1
        for index in range(rank, count, processes):
            if index % stride == 0:
                own, stride = thinned([*own, clip(index)], 10, stride)
            assert len(own) <= 10
        kept += own
    expected, _ = thinned([clip(index) for index in range(count)], 10)
    found, _ = thinned(kept, 10)
    assert sorted(c.index for c in found) == [c.index for c in expected]
    assert len(expected) >= min(count, 5)


def test_no_clips_are_refused() -> None:
    with pytest.raises(SuiteError, match="at least one clip"):
        PosePictures(clips=0)
