"""Your own joints: every detector's file, several people, gaps, videos of any length."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from blocks.geometry.cameras import denormalise
from blocks.geometry.keypoints import CONVERTERS
from datamodules.pose import KeypointsDataModule
from datamodules.pose.keypoint_files import read_keypoints

COUNTS = {"coco": 17, "openpose": 25, "halpe": 26}


def person(kind: str, frames: int, shift: float = 0.0) -> np.ndarray:
    """Joints (F, J, 3) of someone who walks slowly to the right."""
    random = np.random.RandomState(len(kind))
    body = random.rand(COUNTS[kind], 3) * (100, 300, 0.4) + (shift, 50, 0.5)
    return body + np.arange(frames)[:, None, None] * (2.0, 0, 0)


def write(path: Path, kind: str, people: list[dict[int, np.ndarray]], identities: bool) -> Path:
    frames = sorted({frame for one in people for frame in one})
    here = {frame: [(n, one[frame]) for n, one in enumerate(people) if frame in one]
            for frame in frames}  # fmt: skip
    if kind == "openpose":
        path.mkdir()
        for frame in range(frames[-1] + 1):
            found = [{"pose_keypoints_2d": x.ravel().tolist()} for _, x in here.get(frame, [])]
            (path / f"v_{frame:012}_keypoints.json").write_text(json.dumps({"people": found}))
        return path
    entries: list[dict[str, Any]] = []
    for frame, found in here.items():
        if kind == "coco":
            entries.append({"frame_id": frame + 1, "instances": [
                {"keypoints": x[:, :2].tolist(), "keypoint_scores": x[:, 2].tolist(),
                 **({"track_id": n} if identities else {})} for n, x in found]})  # fmt: skip
        else:
            entries += [{"image_id": f"{frame}.jpg", "keypoints": x.ravel().tolist(),
                         **({"idx": n + 1} if identities else {})} for n, x in found]  # fmt: skip
    path.write_text(json.dumps({"instance_info": entries} if kind == "coco" else entries))
    return path


@pytest.mark.parametrize("identities", [True, False])
@pytest.mark.parametrize("kind", sorted(COUNTS))
def test_two_people_stay_apart_and_gaps_are_filled(
    tmp_path: Path, kind: str, identities: bool
) -> None:
    first, second = person(kind, 8), person(kind, 8, shift=600)
    seen = [0, 1, 2, 5, 6, 7]
    people = [{f: first[f] for f in range(8)}, {f: second[f] for f in seen}]
    suffix = "" if kind == "openpose" else ".json"
    path = write(tmp_path / f"video{suffix}", kind, people, identities)
    a, b = read_keypoints(path)
    assert (a.name, b.name) == ("video_0", "video_1")
    np.testing.assert_allclose(a.joints, CONVERTERS[kind](first), rtol=1e-5)
    wanted = CONVERTERS[kind](second)
    np.testing.assert_allclose(b.joints[..., :2], wanted[..., :2], rtol=1e-5)
    assert b.seen.tolist() == [f in seen for f in range(8)]
    assert (b.joints[3:5, :, 2] == 0).all() and (b.joints[seen][..., 2] > 0).all()


def test_a_joint_that_openpose_does_not_see_is_no_corner_of_the_image(tmp_path: Path) -> None:
    joints = person("openpose", 5)
    whole = joints.copy()
    joints[2, 4] = 0
    path = write(tmp_path / "video", "openpose", [dict(enumerate(joints))], False)
    (track,) = read_keypoints(path)
    np.testing.assert_allclose(track.joints[2, 16, :2], whole[2, 4, :2], rtol=1e-5)
    assert track.joints[2, 16, 2] == 0 and track.joints[2, 15, 2] > 0


def test_arrays_of_human36m_must_be_named(tmp_path: Path) -> None:
    joints = np.random.RandomState(0).rand(6, 17, 2) * 500
    np.savez(tmp_path / "joints.npz", keypoints=joints, confidence=np.full((6, 17), 0.5))
    (ours,) = read_keypoints(tmp_path / "joints.npz", "h36m")
    np.testing.assert_allclose(ours.joints[..., :2], joints, rtol=1e-5)
    assert (ours.joints[..., 2] == 0.5).all()
    (coco,) = read_keypoints(tmp_path / "joints.npz")
    np.testing.assert_allclose(coco.joints[:, 9, :2], joints[:, 0], rtol=1e-5)


def predicting(root: Path, **options: Any) -> KeypointsDataModule:
    data = KeypointsDataModule(str(root), size=(1280, 720), joints="h36m", **options)
    data.prepare_data()
    data.setup("predict")
    return data


@pytest.mark.parametrize("frames", [1, 5, 9, 10, 23])
def test_windows_cover_every_frame_of_any_video(tmp_path: Path, frames: int) -> None:
    joints = np.random.RandomState(0).rand(frames, 17, 2).astype(np.float32) * 500
    np.save(tmp_path / "a.npy", joints)
    found = np.full((frames, 17, 2), np.nan)
    data = predicting(tmp_path / "a.npy", num_frames=9, batch_size=2)
    for batch in data.predict_dataloader():
        assert batch["keypoints"].shape[1:] == (9, 17, 3)
        pixels = denormalise(batch["keypoints"][..., :2], batch["size"])
        inside = batch["valid"]
        found[batch["frame"][inside]] = pixels[inside]
        assert inside.sum(1).tolist() == [min(frames, 9)] * len(inside)
    np.testing.assert_allclose(found, joints, rtol=1e-4, atol=1e-2)


def test_a_folder_of_videos_is_read_whole(tmp_path: Path) -> None:
    for name in ("b", "a"):
        np.save(tmp_path / f"{name}.npy", np.ones((4, 17, 2)))
    data = predicting(tmp_path, num_frames=9)
    assert data.info.groups == ("a", "b")
    (batch,) = data.predict_dataloader()
    assert batch["source"] == ["a", "b"] and batch["index"].tolist() == [0, 1]
    assert batch["keypoints"].dtype == torch.float32


def test_a_size_that_is_not_the_videos_is_told(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    joints = np.random.RandomState(0).rand(6, 17, 2) * (1900, 1000)
    np.save(tmp_path / "joints.npy", joints)
    with pytest.warns(UserWarning, match="outside an image of 1280 x 720.*data.init_args.size"):
        predicting(tmp_path / "joints.npy", num_frames=3)
    np.save(tmp_path / "joints.npy", joints / 2)
    recwarn.clear()
    predicting(tmp_path / "joints.npy", num_frames=3)
    assert not recwarn.list


def test_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="bimamba predict"):
        KeypointsDataModule(str(tmp_path), (100, 100)).setup("fit")


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.json", "{}", "KeyError"),
        ("a.json", "not json", "JSONDecodeError"),
        ("a.json", "[]", "nobody"),
        ("a.npz", "text", "an .npz archive"),
        ("a.json", json.dumps([{"image_id": "1", "keypoints": [1.0] * 36}]), "12 joints"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: str, part: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SuiteError, match=part) as caught:
        read_keypoints(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="folders of OpenPose"):
        predicting(tmp_path)


def test_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    joints = np.concatenate((np.full((5, 17, 2), 100.0), np.ones((5, 17, 1))), -1)
    np.save(tmp_path / "walk.npy", joints)
    np.savez(tmp_path / "walk.npz", keypoints=joints)
    data = KeypointsDataModule(str(tmp_path), (1000, 1000), joints="h36m", num_frames=9)
    data.setup("predict")
    assert sorted(data.info.groups) == ["walk", "walk-2"]
