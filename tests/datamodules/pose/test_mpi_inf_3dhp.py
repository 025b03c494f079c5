"""MPI-INF-3DHP: what upstream's readers make of the same archives, and the embedded one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from blocks.geometry.cameras import denormalise
from blocks.geometry.skeleton import MPI_INF_3DHP
from datamodules.inspection import Remark
from datamodules.pose import MPIINF3DHPDataModule, PoseAugment
from datamodules.pose.mpi_inf_3dhp_files import TEST_FILE, TRAIN_FILE
from datamodules.pose.transforms import mirror

ROOT_JOINT = MPI_INF_3DHP.root


def ready(root: Path | None, **options: Any) -> MPIINF3DHPDataModule:
    given = {"num_frames": 9, "train_stride": 4, "batch_size": 4, "num_workers": 0, **options}
    data = MPIINF3DHPDataModule(
        None if root is None else str(root), augment=PoseAugment(flip=0.0), **given
    )
    data.prepare_data()
    data.setup("fit")
    return data


def everything(data: MPIINF3DHPDataModule) -> dict[str, torch.Tensor]:
    batches = list(data.val_dataloader())
    return {k: torch.cat([batch[k] for batch in batches]) for k in batches[0] if k != "source"}


@pytest.fixture
def tiny(golden: Path, tmp_path: Path) -> Path:
    shutil.copy(golden / "pose" / "mpi3dhp_tiny_train.npz", tmp_path / TRAIN_FILE)
    shutil.copy(golden / "pose" / "mpi3dhp_tiny_test.npz", tmp_path / TEST_FILE)
    return tmp_path


@pytest.fixture
def expected(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "pose" / "mpi3dhp_tiny_expected.npz"))


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-4, atol=1e-5)


def test_training_clips_are_those_of_upstream(tiny: Path, expected: dict[str, np.ndarray]) -> None:
    dataset = ready(tiny).train_dataloader().dataset
    samples = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
    close(torch.stack([s["keypoints"] for s in samples]), expected["train_x"])
    close(torch.stack([s["pose"] for s in samples]), expected["train_y"])


def test_windows_around_valid_frames_are_those_of_upstream(
    tiny: Path, expected: dict[str, np.ndarray]
) -> None:
    data = ready(tiny)
    test = everything(data)
    close(test["keypoints"], expected["fusion_x"][:, 0])
    flipped = torch.stack([mirror(x, list(MPI_INF_3DHP.mirrored)) for x in test["keypoints"]])
    close(flipped, expected["fusion_x"][:, 1])
    names = [data.info.groups[group] for group in test["group"].tolist()]
    assert names == expected["fusion_seq"].tolist()
    assert (test["scored"].sum(1) == 1).all() and test["scored"][:, 4].all()
    # Upstream subtracts the root from all joints but the root itself.
    centre = test["target"][:, 4]
    relative = centre - centre[:, ROOT_JOINT : ROOT_JOINT + 1]
    relative[:, ROOT_JOINT] = centre[:, ROOT_JOINT]
    torch.testing.assert_close(relative, torch.from_numpy(expected["fusion_y_mm"][:, 0]))


@pytest.mark.parametrize("upstream_scale", [True, False])
def test_labels_lead_back_to_millimetres(tiny: Path, upstream_scale: bool) -> None:
    test = everything(ready(tiny, upstream_scale=upstream_scale))
    pose = denormalise(test["pose"], test["size"]).double() * test["factor"][..., None, None]
    root = slice(ROOT_JOINT, ROOT_JOINT + 1)
    found = pose - pose[:, :, root]
    truth = test["target"] - test["target"][:, :, root]
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-2)


def test_outdoor_sequences_come_out_small_unless_scaled_as_trained(tiny: Path) -> None:
    """The same prediction in normalised units, in millimetres."""
    scales = {}
    for upstream_scale in (True, False):
        data = ready(tiny, upstream_scale=upstream_scale)
        test = everything(data)
        for group, size, factor in zip(test["group"], test["size"], test["factor"], strict=True):
            scales[data.info.groups[group], upstream_scale] = float(size[0] / 2 * factor[0])
    assert scales["TS1", True] == scales["TS1", False] == scales["TS5", False] == 1024
    assert scales["TS5", True] == 960


def test_info_tells_the_protocol(tiny: Path) -> None:
    info = ready(tiny).info
    assert (info.average, info.skeleton, info.pck_joints) == (
        "frames",
        "mpi_inf_3dhp",
        tuple(range(14)),
    )
    assert (info.frames, info.num_eval, info.num_train) == (24, 18, 20)


def test_an_even_window_has_no_middle(tiny: Path) -> None:
    with pytest.raises(SuiteError, match="odd"):
        ready(tiny, num_frames=8)


def test_the_embedded_set_is_read_like_the_real_one() -> None:
    data = ready(None, preset="tiny", num_frames=27, train_stride=27)
    assert data.info.synthetic and "synthetic" in data.info.protocol
    test = everything(data)
    assert len(test["index"]) == 6 * (54 - 6)
    assert not [r for r in data.validate() if isinstance(r, Remark) and r.level == "error"]
    assert data.describe()["test frames scored"] == 6 * (54 - 6)


def test_missing_and_foreign_archives_are_told_apart(tiny: Path) -> None:
    (tiny / TEST_FILE).unlink()
    with pytest.raises(SuiteError, match=TEST_FILE):
        ready(tiny)
    np.savez(tiny / TEST_FILE, data=np.zeros(3))
    with pytest.raises(SuiteError, match="a dict of sequences"):
        ready(tiny)
    np.savez(tiny / TEST_FILE, data={"TS1": {"data_2d": np.zeros((4, 14, 2)), "data_3d": 0,
                                             "valid": np.ones(4)}})  # fmt: skip
    with pytest.raises(SuiteError, match=r"data_2d of shape \(frames, 17, 2\)"):
        ready(tiny)


def test_a_converted_database_reads_the_same(tiny: Path, tmp_path: Path) -> None:
    before = ready(tiny)
    list(before.convert(tmp_path / "arrays"))
    a, b = everything(before), everything(ready(tmp_path / "arrays"))
    assert all(torch.equal(a[key], b[key]) for key in a)
