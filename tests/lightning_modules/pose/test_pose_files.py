"""Files of `predict`: blended as by hand, in stated units, one set for each video."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M
from datamodules.pose import KeypointsDataModule
from lightning_modules.pose import HybridLifter, PoseFiles, PoseLifting, PosePictures
from lightning_modules.pose.pose_clip import body_height
from lightning_modules.pose.windows import lift_in_windows

FRAMES, LENGTH, STRIDE = 20, 9, 4


def joints(frames: int = FRAMES, people: int = 1) -> np.ndarray:
    random = np.random.RandomState(0)
    xy = random.rand(people, 1, 17, 2) * 300 + random.rand(people, frames, 17, 2) * 40
    return np.concatenate((xy, random.rand(people, frames, 17, 1) * 0.5 + 0.5), -1)


def module(**options: Any) -> PoseLifting:
    torch.manual_seed(0)
    network = HybridLifter(depth=1, dim=8, d_inner=16, dim_rep=8)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return PoseLifting(network, **options)


def data(root: Path, batch_size: int = 2) -> KeypointsDataModule:
    return KeypointsDataModule(
        str(root), (640, 480), "h36m", num_frames=LENGTH, stride=STRIDE, batch_size=batch_size
    )


def predict(
    folder: Path, given: LightningDataModule, callback: PoseFiles | None, **options: Any
) -> PoseLifting:
    taught = module(**options)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=[] if callback is None else [callback],
    )
    trainer.predict(taught, given, return_predictions=False)
    return taught.eval()


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays, json.loads(str(arrays.pop("metadata")))


def test_windows_are_blended_as_over_the_whole_video(tmp_path: Path) -> None:
    np.savez(tmp_path / "my walk.npz", keypoints=joints()[0])
    given = data(tmp_path / "my walk.npz")
    taught = predict(tmp_path / "run", given, PoseFiles(video="none"))
    arrays, facts = read(tmp_path / "run" / "poses" / "my_walk.npz")
    windows = given._opened()
    keypoints = torch.from_numpy(windows.tracks[0].joints)
    size = torch.tensor([640.0, 480.0])
    normal = torch.cat(((keypoints[..., :2] - size / 2) / 320, keypoints[..., 2:]), -1)

    def lift(clips: Tensor) -> Tensor:
        return taught.rooted(taught(clips))

    with torch.no_grad():
        expected = lift_in_windows(lift, normal, LENGTH, STRIDE)
    np.testing.assert_allclose(arrays["poses"], expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(arrays["confidence"], joints()[0, ..., 2], atol=1e-6)
    assert arrays["frames"].tolist() == list(range(FRAMES))
    assert sorted(arrays) == ["confidence", "frames", "poses"]
    assert facts == {
        "source": "my walk",
        "unit": "half image widths",
        "axes": "camera: x right, y down, z away",
        "origin": "root-relative",
        "joints": list(H36M.names),
        "fps": 25.0,
    }
    files = sorted(path.name for path in (tmp_path / "run" / "poses").iterdir())
    assert files == ["my_walk.html", "my_walk.npz"]


def test_a_video_shorter_than_a_window_has_its_own_frames_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", keypoints=joints(5)[0])
    predict(tmp_path / "run", data(tmp_path / "short.npz"), PoseFiles(video="none"))
    arrays, _ = read(tmp_path / "run" / "poses" / "short.npz")
    assert arrays["poses"].shape == (5, 17, 3)


def test_a_body_height_gives_millimetres_to_each_person(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", keypoints=joints(people=2))
    callback = PoseFiles(body_height_mm=1650, fps=30, video="none")
    predict(tmp_path / "run", data(tmp_path / "two.npz"), callback)
    for person in (0, 1):
        arrays, facts = read(tmp_path / "run" / "poses" / f"two_{person}.npz")
        assert body_height(arrays["poses"], H36M) == pytest.approx(1650, rel=1e-5)
        assert (facts["unit"], facts["fps"]) == ("mm", 30)
    page = (tmp_path / "run" / "poses" / "all_together.html").read_text()
    assert "two_0" in page
    assert "two_1" in page
    assert "root-relative, mm" in page


def test_films_show_the_beginning_of_the_first_videos(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", keypoints=joints(people=2))
    callback = PoseFiles(fps=20, videos=1, video_seconds=0.25)
    predict(tmp_path / "run", data(tmp_path / "two.npz"), callback)
    (film,) = (tmp_path / "run" / "poses").glob("*.gif")
    assert film.name == "two_0.gif"
    with Image.open(film) as frames:
        assert frames.n_frames == 5
    arrays, _ = read(tmp_path / "run" / "poses" / "two_0.npz")
    assert len(arrays["poses"]) == FRAMES


class Measured(LightningDataModule):
    """Two clips of one video with truth, the last one first."""

    def predict_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches(), batch_size=None)  # type: ignore[arg-type]

    def batches(self) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        frame = torch.arange(100, 115)
        target = torch.randn(15, 17, 3, dtype=torch.float64) * 300
        return [
            {
                "keypoints": torch.rand(1, LENGTH, 17, 3),
                "target": target[start : start + LENGTH][None],
                "factor": torch.full((1, LENGTH), 4.0),
                "size": torch.tensor([[1000.0, 1002.0]], dtype=torch.float64),
                "frame": frame[start : start + LENGTH][None],
                "index": torch.tensor([index]),
                "source": ["S9/Walking 1"],
            }
            for index, start in ((1, 6), (0, 0))
        ]


@pytest.mark.parametrize("relative", [True, False])
def test_data_with_truth_gives_both_in_its_millimetres(tmp_path: Path, relative: bool) -> None:
    callback = PoseFiles(body_height_mm=1, video="none")
    taught = predict(tmp_path, Measured(), callback, root_relative=relative)
    arrays, facts = read(tmp_path / "poses" / "S9_Walking_1.npz")
    last, first = Measured().batches()
    target = torch.cat((first["target"], last["target"][:, 3:]), 1)[0]
    if relative:
        target = target - target[:, :1]
    np.testing.assert_allclose(arrays["truth"], target.numpy(), atol=1e-3)
    with torch.no_grad():
        pose = taught.millimetres(taught.rooted(taught(first["keypoints"])), first)[0, :6]
    if relative:
        pose = pose - pose[:, :1]
    # Frames before the second clip are the first clip's alone.
    np.testing.assert_allclose(arrays["poses"][:6], pose.numpy(), atol=1e-2)
    assert arrays["frames"].tolist() == list(range(100, 115))
    assert facts["unit"] == "mm"
    assert facts["origin"] == ("root-relative" if relative else "camera-space")


def test_predict_writes_files_and_no_pictures_by_itself(tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", keypoints=joints(5)[0])
    predict(tmp_path / "run", data(tmp_path / "short.npz"), None)
    files = sorted(str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*.*"))
    assert files == ["poses/short.gif", "poses/short.html", "poses/short.npz"]
    own = PoseFiles(video="none")
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        default_root_dir=tmp_path / "own", callbacks=[own],
    )  # fmt: skip
    trainer.predict(module(), data(tmp_path / "short.npz"), return_predictions=False)
    found = [c for c in trainer.callbacks if isinstance(c, PoseFiles | PosePictures)]
    assert found == [own]


@pytest.mark.parametrize("name", ["body_height_mm", "fps", "video_seconds"])
def test_numbers_that_make_no_sense_are_refused(name: str) -> None:
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(SuiteError, match=name):
            PoseFiles(**{name: value})
