"""Joints of other detectors in Human3.6M's order."""

import numpy as np
import pytest

from blocks.errors import SuiteError
from blocks.geometry.keypoints import (
    CONVERTERS,
    coco_to_h36m,
    h36m_to_3dhp,
    halpe_to_h36m,
    mediapipe_to_h36m,
    openpose_to_h36m,
)
from blocks.geometry.skeleton import H36M, MPI_INF_3DHP

COCO = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder",
    "left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee",
    "right knee", "left ankle", "right ankle",
)  # fmt: skip
MEDIAPIPE = {
    0: "nose", 2: "left eye", 5: "right eye", 11: "left shoulder", 12: "right shoulder",
    13: "left elbow", 14: "right elbow", 15: "left wrist", 16: "right wrist", 23: "left hip",
    24: "right hip", 25: "left knee", 26: "right knee", 27: "left ankle", 28: "right ankle",
}  # fmt: skip
OPENPOSE = {
    0: "nose", 1: "thorax", 2: "right shoulder", 3: "right elbow", 4: "right wrist",
    5: "left shoulder", 6: "left elbow", 7: "left wrist", 8: "pelvis", 9: "right hip",
    10: "right knee", 11: "right ankle", 12: "left hip", 13: "left knee", 14: "left ankle",
    15: "right eye", 16: "left eye",
}  # fmt: skip
HALPE = {**dict(enumerate(COCO)), 17: "head", 18: "thorax", 19: "pelvis"}

LIMBS = [name for name in H36M.names if name.startswith(("left", "right"))]


def body() -> dict[str, np.ndarray]:
    """A place and a confidence for every name."""
    random = np.random.RandomState(0)
    names = sorted({*COCO, *LIMBS, "head", "thorax", "pelvis"})
    return {name: random.rand(3) for name in names}


@pytest.mark.parametrize(
    ("convert", "count", "names"),
    [
        (coco_to_h36m, 17, dict(enumerate(COCO))),
        (halpe_to_h36m, 26, HALPE),
        (mediapipe_to_h36m, 33, MEDIAPIPE),
        (openpose_to_h36m, 25, OPENPOSE),
    ],
)
def test_every_limb_keeps_its_name(convert, count: int, names: dict[int, str]) -> None:  # noqa: ANN001
    places = body()
    joints = np.zeros((2, count, 3))
    for number, name in names.items():
        joints[:, number] = places[name]
    out = convert(joints)
    assert out.shape == (2, 17, 3)
    for name in LIMBS:
        np.testing.assert_array_equal(out[1, H36M.names.index(name)], places[name], name)
    np.testing.assert_array_equal(out[0, 9], places["nose"])
    middle = {
        "pelvis": ("left hip", "right hip"),
        "thorax": ("left shoulder", "right shoulder"),
        "head": ("left eye", "right eye"),
    }
    for name, (a, b) in middle.items():
        found = out[0, H36M.names.index(name)]
        if name in names.values():
            np.testing.assert_array_equal(found, places[name])
        else:
            np.testing.assert_allclose(found[:2], (places[a][:2] + places[b][:2]) / 2)
            assert found[2] == min(places[a][2], places[b][2])
    np.testing.assert_allclose(out[0, 7, :2], (out[0, 0, :2] + out[0, 8, :2]) / 2)


def test_places_alone_are_enough() -> None:
    assert coco_to_h36m(np.random.RandomState(0).rand(4, 17, 2)).shape == (4, 17, 2)


def test_the_order_of_3dhp_follows_the_names() -> None:
    order = h36m_to_3dhp(np.repeat(np.arange(17.0)[:, None], 3, 1))[:, 0].astype(int)
    same = {"head top": "head", "neck": "thorax", "head": "neck"}
    for name, joint in zip(MPI_INF_3DHP.names, order, strict=True):
        assert H36M.names[joint] == same.get(name, name)


@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_a_wrong_number_of_joints_is_told(name: str) -> None:
    with pytest.raises(SuiteError, match=r"\(3, 12, 2\)"):
        CONVERTERS[name](np.zeros((3, 12, 2)))
