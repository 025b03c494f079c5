"""VideoPose3D's archives: the same cameras, and a database computed from them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from blocks.files import load_npz
from blocks.geometry.cameras import image_factor, image_pose
from blocks.geometry.h36m_cameras import H36M_CAMERAS
from datamodules.pose import Human36MDataModule
from datamodules.pose.videopose3d import choose_keypoints, read_videopose3d

POSITIONS, PIXELS = "data_3d_h36m.npz", "data_2d_h36m_gt.npz"


@pytest.fixture
def root(golden: Path, tmp_path: Path) -> Path:
    shutil.copy(golden / "pose" / "data_3d_h36m_tiny.npz", tmp_path / POSITIONS)
    shutil.copy(golden / "pose" / "data_2d_h36m_tiny_gt.npz", tmp_path / PIXELS)
    return tmp_path


def change(path: Path, edit: Any) -> None:
    content = load_npz(path)
    edit(content)
    np.savez(path, **content)


def test_poses_and_factors_follow_from_the_golden_cameras(root: Path, golden: Path) -> None:
    expected = np.load(golden / "pose" / "videopose3d_expected.npz")
    train = read_videopose3d(root / POSITIONS, root / PIXELS)["train"]
    assert [video.name for video in train.videos[:5]] == [
        *(f"s_01_act_14_subact_01_ca_0{camera}" for camera in (1, 2, 3, 4)),
        "s_01_act_02_subact_01_ca_01",
    ]
    assert train.factor is not None and train.target is not None
    for number, video in enumerate(train.videos[:4]):
        part = slice(video.start, video.stop)
        camera = H36M_CAMERAS[number]
        cam = torch.from_numpy(expected[f"S1/Walking 1/{number}/cam"]).double() * 1000
        image = image_pose(cam, camera)
        np.testing.assert_allclose(train.pose[part, :, 2], image[..., 2], rtol=1e-3, atol=1e-2)
        # These projections have the lens in them; the database has not.
        pixels = expected[f"S1/Walking 1/{number}/px"]
        assert 0.1 < np.median(np.abs(train.pose[part, :, :2] - pixels)) < 5
        np.testing.assert_allclose(train.keypoints[part], pixels, atol=1e-2)
        factor = image_factor(torch.from_numpy(train.pose[part]).double(), cam)
        np.testing.assert_allclose(train.factor[part], factor, rtol=1e-4)
    product = train.pose.astype(float) * train.factor[:, None, None]
    np.testing.assert_allclose(train.target, product)


def test_the_module_reads_them_as_one_more_layout(root: Path) -> None:
    data = Human36MDataModule(str(root), num_frames=3, num_workers=0, batch_size=2)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["source"][0] == "s_09_act_05_subact_01_ca_01"
    assert (batch["keypoints"][..., 2] == 1).all(), "these archives have no confidence"
    assert (
        data.info.protocol.endswith("input detected (gt)")
        and data.describe()["2-D joints"] == PIXELS
    )


def test_the_take_without_a_number_is_the_second(root: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for part in content.values():
            if "S9" in part:
                part["S9"]["Greeting"] = part["S9"]["Greeting 1"]

    change(root / POSITIONS, edit)
    change(root / PIXELS, edit)
    test = read_videopose3d(root / POSITIONS, root / PIXELS)["test"]
    names = {video.name.rpartition("_ca_")[0] for video in test.videos}
    # The second Greeting of subject 9 is one of the three recordings that are left out.
    assert names == {"s_09_act_05_subact_01", "s_09_act_05_subact_02"}


def test_cpn_comes_first_and_the_truth_last(root: Path) -> None:
    assert choose_keypoints(root, None).name == PIXELS
    for name in ("data_2d_h36m_sh_pt_mpii.npz", "data_2d_h36m_cpn_ft_h36m_dbb.npz"):
        (root / name).touch()
    assert "cpn" in choose_keypoints(root, None).name
    assert choose_keypoints(root, PIXELS).name == PIXELS


def test_cameras_in_another_order_are_noticed(root: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for actions in content["positions_2d"].values():
            for name in actions:
                actions[name] = actions[name][::-1]

    change(root / PIXELS, edit)
    with pytest.raises(SuiteError, match="joints near the projected poses"):
        read_videopose3d(root / POSITIONS, root / PIXELS)


def test_joints_of_coco_are_put_in_order(root: Path) -> None:
    """As in data_2d_h36m_detectron_pt_coco.npz; the file's metadata tells."""
    limbs = {5: 11, 6: 14, 7: 12, 8: 15, 9: 13, 10: 16, 11: 4, 12: 1, 13: 5, 14: 2, 15: 6, 16: 3}
    before = read_videopose3d(root / POSITIONS, root / PIXELS)["train"].keypoints

    def edit(content: dict[str, Any]) -> None:
        sides = [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]
        content["metadata"]["keypoints_symmetry"] = sides
        for actions in content["positions_2d"].values():
            for name, views in actions.items():
                actions[name] = [v[:, [limbs.get(joint, 9) for joint in range(17)]] for v in views]

    change(root / PIXELS, edit)
    after = read_videopose3d(root / POSITIONS, root / PIXELS)["train"].keypoints
    np.testing.assert_array_equal(after[:, list(limbs.values())], before[:, list(limbs.values())])


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda c: c["positions_2d"]["S1"].pop("Walking 1"), "S1 Walking 1"),
        (lambda c: c["positions_2d"]["S9"]["Greeting 1"].pop(), "four arrays of at least 3 frames"),
        (lambda c: c["metadata"].update(keypoints_symmetry=[[3, 4, 5], [0, 1, 2]]), "left joints"),
    ],
)
def test_archives_that_do_not_fit_are_refused(root: Path, edit: Any, part: str) -> None:
    change(root / PIXELS, edit)
    with pytest.raises(SuiteError, match=part):
        read_videopose3d(root / POSITIONS, root / PIXELS)
