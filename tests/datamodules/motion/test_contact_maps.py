"""Scenes and contact maps: distances, places seen from the first frame, predictions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from blocks.geometry.motion_features import recover_joints
from blocks.geometry.motion_skeleton import HUMANML3D
from datamodules.motion import HumanML3DDataModule
from datamodules.motion.contact_maps import contact_map, distances, floor_patch

CONTACTS = list(HUMANML3D.contact_joints)


def batch_of(root: Path, stage: str = "test", **options: object) -> dict[str, torch.Tensor]:
    data = HumanML3DDataModule(root=str(root), num_workers=0, batch_size=4, **options)  # type: ignore[arg-type]
    data.setup(stage)
    found: dict[str, torch.Tensor] = next(iter(data.test_dataloader()))
    return found


@pytest.fixture
def scenes(humanml3d: Path, tmp_path: Path) -> Path:
    """The miniature with the contact files of afford-motion, and predictions for one caption."""
    root = tmp_path / "scenes"
    shutil.copytree(humanml3d, root)
    (root / "contacts").mkdir()
    random = np.random.default_rng(0)
    for name in (root / "test.txt").read_text().split():
        joints = torch.from_numpy(np.load(root / "new_joints" / f"{name}.npy"))
        points = random.uniform(-2, 2, (1500, 3)).astype(np.float32)
        dist = distances(torch.from_numpy(points), joints).numpy()
        np.savez(root / "contacts" / f"{name}.npz", points=points, dist=dist)
    return root


def test_a_map_is_one_where_they_touch_and_falls_with_sigma() -> None:
    found = contact_map(torch.tensor([0.0, 0.8, 8.0]), 0.8)
    torch.testing.assert_close(
        found, torch.tensor([1.0, float(np.exp(-0.5)), 0.0]), atol=1e-6, rtol=0
    )


def test_distances_are_the_smallest_over_time() -> None:
    points, joints = torch.rand(7, 3), torch.rand(11, 22, 3)
    naive = (points[:, None, None] - joints[None]).norm(dim=-1).amin(1)
    torch.testing.assert_close(distances(points, joints), naive)


def test_a_floor_lies_under_the_path_and_feet_touch_it(humanml3d: Path) -> None:
    batch = batch_of(humanml3d, contacts="floor", num_points=1024)
    assert batch["points"].shape == (4, 1024, 3) and batch["contact"].shape == (4, 1024, 6)
    assert (batch["points"][..., 1] == 0).all()
    assert batch["contact"].dtype == torch.float32
    touched = batch["contact"].amax(1)
    assert (touched[:, 1:3] > 0.95).all(), "both feet"
    assert (touched[:, 3] < 0.9).all(), "not the neck"
    again = batch_of(humanml3d, contacts="floor", num_points=1024)
    assert torch.equal(batch["points"], again["points"])


def test_floor_points_are_spread_evenly() -> None:
    joints = torch.zeros(2, 22, 3)
    points = floor_patch(joints, HUMANML3D, 1024, draw=False)
    nearest = torch.cdist(points, points).fill_diagonal_(9).amin(1)
    assert nearest.min() > 0.3 * nearest.max()


def test_files_are_read_and_seen_from_the_first_frame_of_a_piece(scenes: Path) -> None:
    name = (scenes / "test.txt").read_text().split()[0]
    (scenes / "test.txt").write_text(f"{name}\n")
    (scenes / "texts" / f"{name}.txt").write_text("a man.#man/NOUN#0.5#2.5\n")
    batch = batch_of(scenes, contacts="files", num_points=1500)
    features = torch.from_numpy(np.load(scenes / "new_joint_vecs" / f"{name}.npy"))[10:50]
    # Near the body at its own place: distances in the piece are no smaller than over the clip.
    joints = recover_joints(features, HUMANML3D)[:, CONTACTS]
    own = contact_map(distances(batch["points"][0], joints), 0.8)
    assert (own <= batch["contact"][0] + 1e-4).all()
    stored = np.load(scenes / "contacts" / f"{name}.npz")["dist"][:, CONTACTS]
    torch.testing.assert_close(batch["contact"][0], contact_map(torch.from_numpy(stored), 0.8))


def test_predictions_take_the_place_of_the_truth_in_evaluation(
    scenes: Path, tmp_path: Path
) -> None:
    predicted = tmp_path / "predicted"
    predicted.mkdir()
    for name in (scenes / "test.txt").read_text().split():
        np.save(predicted / f"{name}-0.npy", np.full((2, 1500, 6), 0.4, np.float32))
    options = {"contacts": "files", "num_points": 1024, "predicted_contacts": str(predicted)}
    batch = batch_of(scenes, **options)
    assert torch.allclose(batch["contact"], contact_map(torch.tensor(0.4), 0.8))
    next(predicted.iterdir()).unlink()
    with pytest.raises(SuiteError, match="predicted distances of every caption"):
        batch_of(scenes, **options)


def test_broken_scenes_are_named(scenes: Path) -> None:
    name = (scenes / "test.txt").read_text().split()[0]
    with pytest.raises(SuiteError, match="lower data.init_args.num_points"):
        batch_of(scenes, contacts="files", num_points=2000)
    np.savez(scenes / "contacts" / f"{name}.npz", points=np.zeros((5, 3)))
    with pytest.raises(SuiteError, match=r"dist \(N, 22\)"):
        batch_of(scenes, contacts="files")
    (scenes / "contacts" / f"{name}.npz").unlink()
    with pytest.raises(SuiteError, match="contacts: floor"):
        batch_of(scenes, contacts="files")
    with pytest.raises(SuiteError, match="contacts: files"):
        HumanML3DDataModule(predicted_contacts="x")
