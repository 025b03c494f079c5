"""The embedded set: bodies that hold together, feet that stand, words that can be seen."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.geometry.motion_features import recover_joints, recover_root, wrapped_frames
from blocks.geometry.motion_skeleton import HUMANML3D, KIT
from datamodules.motion.actions import ACTIONS, Manner
from datamodules.motion.body import ANKLE, FEET, PARENTS, TOE, posed, resting
from datamodules.motion.embedded_motion import converted, made, write_motion
from datamodules.motion.lexicon import mirrored, tagged
from datamodules.motion.performance import Part, perform

MOVING = ("walk", "run", "circle", "run_circle", "step")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embedded")
    write_motion(root, 24, (0.5, 0.25))
    return root


def act(action: str, **manner: float) -> np.ndarray:
    made = Manner(**{"angle": np.pi, "direction": 0 if action == "jump" else 1, **manner})  # type: ignore[arg-type]
    return perform([Part(action, made)], 120, 20.0)


@pytest.mark.parametrize("action", ACTIONS)
def test_bodies_hold_together_and_nobody_sinks_or_leaps(action: str) -> None:
    joints = act(action)
    bones = np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1)
    assert np.ptp(bones, axis=0).max() < 1e-9
    assert joints[..., 1].min() > -1e-9
    assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() < 0.6, "12 m/s"
    if action not in ("jump", "run", "run_circle"):
        assert joints[:, FEET, 1].min(1).max() < 0.03, "always a foot on the ground"


@pytest.mark.parametrize("action", [a for a in ACTIONS if a not in MOVING])
def test_feet_do_not_slide_on_the_spot(action: str) -> None:
    joints = act(action)
    low = joints[1:, list(TOE), 1] < 0.01
    step = np.linalg.norm(np.diff(joints[:, list(TOE)][..., [0, 2]], axis=0), axis=-1) * 20
    assert step[low].mean() < (0.25 if action in ("turn", "kick") else 0.02), "m/s"


@pytest.mark.parametrize("action", ["walk", "circle", "step"])
def test_one_foot_stands_while_the_other_one_walks(action: str) -> None:
    joints = act(action)
    pace = np.linalg.norm(np.gradient(joints[:, list(ANKLE)][..., [0, 2]], axis=0), axis=-1) * 20
    root = np.linalg.norm(np.gradient(joints[:, 0, [0, 2]], axis=0), axis=-1) * 20
    assert np.median(pace[4:-4].min(1)) < 0.05 < 0.2 < root.mean()


def test_knees_bend_backwards() -> None:
    for action in ACTIONS:
        joints = act(action)
        for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
            upper, lower = joints[:, knee] - joints[:, hip], joints[:, ankle] - joints[:, knee]
            across = joints[:, 1] - joints[:, 2]
            bend = (np.cross(upper, lower) * across).sum(-1)
            size = np.linalg.norm(upper, axis=-1) * np.linalg.norm(lower, axis=-1)
            assert (bend / size / np.linalg.norm(across, axis=-1) > -0.12).all(), action


@pytest.mark.parametrize("side, word", [(1, "left"), (-1, "right")])
def test_sides_are_those_of_the_words(side: int, word: str) -> None:
    rest = posed(resting(1), np.zeros(1))[0]
    name = HUMANML3D.joints.index(f"{word}_wrist")
    other = HUMANML3D.mirrored[name]
    for action in ("wave", "raise"):
        raised = act(action, side=side)[-1, :, 1] - rest[:, 1]
        assert raised[name] > raised[other] + 0.5
    # Left is +x for somebody who faces +z.
    assert side * act("step", side=side)[-1, 0, 0] > 0.5
    assert side * act("circle", side=side)[20, 0, 0] > 0.05
    foot = HUMANML3D.joints.index(f"{word}_foot")
    assert act("kick", side=side)[:, foot, 1].max() > 0.4


def test_speeds_directions_and_counts_can_be_told_apart() -> None:
    pace = [act("walk", rate=rate)[-1, 0, 2] for rate in (0.6, 1.0, 1.6)]
    assert pace[0] * 1.3 < pace[1] < pace[2] / 1.3
    assert act("walk", direction=-1)[-1, 0, 2] < -1
    for count in (1, 2, 3):
        high = act("jump", count=count)[:, FEET, 1].min(1) > 0.1
        assert np.diff(high.astype(int)).clip(0).sum() == count
    for angle in (np.pi / 2, np.pi):
        joints = act("turn", angle=angle)
        across = joints[-1, 1] - joints[-1, 2]
        turned = np.arctan2(-across[2], across[0])
        assert abs(abs(turned) - angle) < 0.15


def test_clips_are_in_the_published_tree(embedded: Path) -> None:
    names = (embedded / "all.txt").read_text().split()
    assert len(names) == 48 and sum(name.startswith("M") for name in names) == 24
    splits = {s: (embedded / f"{s}.txt").read_text().split() for s in ("train", "val", "test")}
    assert [len(members) for members in splits.values()] == [24, 12, 12]
    for members in splits.values():
        assert {name.removeprefix("M") for name in members} == {
            name for name in members if not name.startswith("M")
        }
    meta = json.loads((embedded / "meta.json").read_text())
    assert (meta["mode"], meta["fps"], meta["skeleton"]) == ("repaired", 20.0, "humanml3d")
    std = np.load(embedded / "Std.npy")
    assert std.shape == (263,) and len(np.unique(std)) == 7
    for name in names:
        features = np.load(embedded / "new_joint_vecs" / f"{name}.npy")
        joints = np.load(embedded / "new_joints" / f"{name}.npy")
        assert features.dtype == joints.dtype == np.float32
        assert 60 <= len(features) == len(joints) <= 192 and len(features) % 4 == 0
        assert np.isfinite(features).all()
        recovered = recover_joints(torch.from_numpy(features), HUMANML3D).numpy()
        np.testing.assert_allclose(joints, recovered, atol=1e-5)
        assert not wrapped_frames(torch.from_numpy(features), HUMANML3D).any()


def test_every_word_is_in_the_lexicon_and_mirrors_say_the_other_side(embedded: Path) -> None:
    for file in (embedded / "texts").glob("0*.txt"):
        lines = [line.split("#") for line in file.read_text().splitlines()]
        twins = (file.parent / f"M{file.name}").read_text().splitlines()
        assert len(lines) == 3 == len({fields[0] for fields in lines})
        for fields, twin in zip(lines, twins, strict=True):
            assert "OTHER" not in fields[1] and fields[1] == tagged(fields[0])
            assert twin.split("#")[0] == mirrored(fields[0])


def test_captions_of_turns_fit_the_motion(embedded: Path) -> None:
    """What the words say of sides is in the features, in the mirrored clips, too."""
    seen = 0
    for file in (embedded / "texts").glob("*.txt"):
        text = file.read_text().split("#")[0]
        found = re.search(r" in a circle to the (left|right)| (clock|counterclock)wise in a ", text)
        if not found or " then " in text:
            continue
        features = torch.from_numpy(np.load(embedded / "new_joint_vecs" / f"{file.stem}.npy"))
        angle, _ = recover_root(features)
        # The heading's angle goes from +z towards +x, the left.
        assert (float(angle[-1]) > 1) == (found[1] == "left" or found[2] == "counterclock")
        seen += 1
    assert seen


def test_content_depends_on_the_seed_alone(tmp_path: Path) -> None:
    clips = [made(seed, 5, 20.0) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(clips[0].joints, clips[1].joints)
    assert clips[0].lines == clips[1].lines != clips[2].lines
    for folder in ("a", "b"):
        write_motion(tmp_path / folder, 2, (0.5, 0.5))
    for file in (tmp_path / "a").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_kit_has_its_own_joints_and_unit() -> None:
    rest = torch.from_numpy(posed(resting(1), np.zeros(1)))
    kit = converted(rest, KIT)
    assert kit.shape == (1, 21, 3)
    for name in ("left_knee", "right_wrist", "right_hip"):
        expected = rest[0, HUMANML3D.joints.index(name)] * KIT.metre
        torch.testing.assert_close(kit[0, KIT.joints.index(name)], expected)
    ankle, foot, toe = (kit[0, KIT.joints.index(f"left_{n}")] for n in ("ankle", "foot", "toe"))
    torch.testing.assert_close(toe - ankle, 1.4 * (foot - ankle))
