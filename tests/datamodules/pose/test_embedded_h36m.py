"""The embedded people: bodies that hold together, and data on which lifting means something."""

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.geometry.skeleton import H36M
from datamodules.inspection import Remark
from datamodules.pose import Human36MDataModule
from datamodules.pose.baselines import cached_baselines, reference_baselines
from datamodules.pose.body_motion import STYLES, body_motion, forward_kinematics
from datamodules.pose.database import PoseSplit
from datamodules.pose.embedded_h36m import generate_h36m, synthetic_split
from datamodules.pose.h36m_names import ACTIONS, Recording
from datamodules.pose.h36m_pickle import FILE_NAME, read_h36m_pickle


@pytest.fixture(scope="module")
def database() -> dict[str, PoseSplit]:
    return read_h36m_pickle(generate_h36m("tiny") / FILE_NAME)


def test_every_action_has_its_style() -> None:
    assert set(STYLES) == set(ACTIONS)


@pytest.mark.parametrize("action", range(2, 17))
def test_bones_keep_their_length_and_nobody_sinks(action: int) -> None:
    joints = body_motion(Recording(9, action, 1, 0), 120)
    parents, children = np.array(H36M.bones).T
    lengths = np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)
    np.testing.assert_allclose(lengths, lengths[:1].repeat(120, 0))
    assert joints[..., 2].min() > -1e-6
    assert np.abs(np.diff(joints, axis=0)).max() < 120, "nobody moves 6 m/s"


def test_a_body_at_rest_stands_with_its_right_hand_on_the_right() -> None:
    rest = forward_kinematics(np.zeros((1, 17, 3)))[0]
    assert (rest[list(H36M.right), 0] > 0).all() and (rest[list(H36M.left), 0] < 0).all()
    assert rest[10, 2] > rest[8, 2] > 0 > rest[3, 2]


def test_knees_bend_backwards() -> None:
    """Whatever the hip does, the shin is on the side of the thigh where its calf is."""
    for action in range(2, 17):
        joints = body_motion(Recording(5, action, 2, 0), 100)
        across = joints[:, 1] - joints[:, 4]
        for top, middle, end in ((1, 2, 3), (4, 5, 6)):
            upper, lower = joints[:, middle] - joints[:, top], joints[:, end] - joints[:, middle]
            bend = (np.cross(lower, upper) * across).sum(-1)
            size = np.linalg.norm(upper, axis=-1) * np.linalg.norm(lower, axis=-1)
            assert (bend / size / np.linalg.norm(across, axis=-1) > -0.1).all()


def test_the_file_is_that_of_human36m() -> None:
    content = pickle.loads((generate_h36m("tiny") / FILE_NAME).read_bytes())
    assert set(content["train"]) == {
        "joint_2d", "confidence", "joint3d_image", "camera_name", "source",
    }  # fmt: skip
    assert set(content["test"]) - set(content["train"]) == {
        "joints_2.5d_image", "2.5d_factor", "action",
    }  # fmt: skip
    assert len(set(content["train"]["source"])) == 5 * 15 * 2 * 4
    assert Counter(content["test"]["action"]) == dict.fromkeys(ACTIONS, 2 * 2 * 4 * 54)


def test_generation_is_repeatable() -> None:
    first, again = (synthetic_split((9,), 10, test=True) for _ in range(2))
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])


def test_figures_are_those_of_the_prototype(database: dict[str, PoseSplit]) -> None:
    """specification: factor 2.4 to 6.0, median 4.56; 2-D error 7.3 px; all joints in the image."""
    test = database["test"]
    assert test.factor is not None and test.confidence is not None
    assert test.factor.min() > 2.2 and test.factor.max() < 6.5
    assert np.median(test.factor) == pytest.approx(4.56, abs=0.2)
    error = np.linalg.norm(test.keypoints - test.pose[..., :2], axis=-1)
    assert error.mean() == pytest.approx(7.3, abs=0.4)
    inside = (test.pose[..., :2] > 0) & (test.pose[..., :2] < 1000)
    assert inside.mean() > 0.9995
    assert np.corrcoef(error.ravel(), test.confidence.ravel())[0, 1] < -0.8


def test_baselines_are_ordered_as_they_should_be(database: dict[str, PoseSplit]) -> None:
    found = reference_baselines(database["train"], database["test"], "detected")
    assert found["mean pose"] == pytest.approx(211.7, rel=0.05)
    assert found["zero depth"] == pytest.approx(134.2, rel=0.05)
    order = ["mean pose", "zero depth", "ridge", "ridge with context"]
    assert [found[name] for name in order] == sorted((found[n] for n in order), reverse=True)
    assert found["frame MLP"] < found["ridge"]


def test_baselines_are_computed_once_for_each_input(
    tmp_path: Path, database: dict[str, PoseSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fake(train: PoseSplit, test: PoseSplit, which: str) -> dict[str, float]:
        calls.append(which)
        return {"mean pose": float(len(calls))}

    monkeypatch.setattr("datamodules.pose.baselines.reference_baselines", fake)
    file = tmp_path / "baselines.json"
    for which in ("detected", "gt", "detected"):
        cached_baselines(file, which, lambda: (database["train"], database["test"]))  # type: ignore[arg-type]
    assert calls == ["detected", "gt"]
    assert json.loads(file.read_text()) == {"detected": {"mean pose": 1}, "gt": {"mean pose": 2}}


def test_the_datamodule_says_that_it_is_synthetic() -> None:
    data = Human36MDataModule(preset="tiny", num_frames=27, num_workers=0, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    assert data.info.synthetic and data.info.protocol.startswith("synthetic (tiny)")
    assert data.info.baselines["mean pose"] > data.info.baselines["ridge"] > 40
    assert data.info.groups == tuple(sorted(ACTIONS))
    # Nothing is left over: two clips of 27 in each video of 54 frames.
    assert data.info.num_eval == 2 * 15 * 2 * 4 * 2
    assert data.describe()["test frames in no clip"] == 0
    levels = {r.level for r in data.validate(sample=20) if isinstance(r, Remark)}
    assert levels <= {"note"}
    batch = next(iter(data.train_dataloader()))
    assert torch.isfinite(batch["keypoints"]).all() and batch["keypoints"].abs().max() < 1.2
