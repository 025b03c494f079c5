"""Tables of the two skeletons: what belongs to what."""

import pytest

from blocks.errors import SuiteError
from blocks.geometry.motion_skeleton import HUMANML3D, KIT, MotionSkeleton, skeleton_of

BOTH = pytest.mark.parametrize("skeleton", [HUMANML3D, KIT], ids=lambda s: s.name)


@BOTH
def test_tables_fit_each_other(skeleton: MotionSkeleton) -> None:
    count = skeleton.num_joints
    assert len(skeleton.rest) == len(skeleton.parents) == count
    assert skeleton.parents[0] == -1 and skeleton.parents.count(-1) == 1
    ends = [joint for chain in skeleton.chains for joint in chain[1:]]
    assert sorted(ends) == list(range(1, count))
    assert sorted(skeleton.mirrored) == list(range(count))
    for left, right in zip(skeleton.left, skeleton.right, strict=True):
        assert skeleton.joints[left] == skeleton.joints[right].replace("right", "left")
        parents = skeleton.parents[left], skeleton.parents[right]
        assert skeleton.mirrored[parents[0]] == parents[1]
    for joint in skeleton.feet[:2]:
        assert skeleton.joints[joint].startswith("left")


@BOTH
def test_face_and_feet_name_the_sides_they_claim(skeleton: MotionSkeleton) -> None:
    names = [skeleton.joints[joint] for joint in skeleton.face]
    assert names == ["right_hip", "left_hip", "right_shoulder", "left_shoulder"]
    assert [skeleton.joints[j].split("_")[0] for j in skeleton.feet] == ["left"] * 2 + ["right"] * 2


@pytest.mark.parametrize(
    "skeleton, groups",
    [
        (HUMANML3D, (0, 1, 3, 4, 67, 193, 259, 263)),
        (KIT, (0, 1, 3, 4, 64, 184, 247, 251)),
    ],
)
def test_groups_of_features(skeleton: MotionSkeleton, groups: tuple[int, ...]) -> None:
    assert skeleton.groups == tuple(zip(groups, groups[1:], strict=False))
    assert skeleton.num_features == groups[-1]
    assert skeleton_of(groups[-1]) is skeleton


def test_arms_do_not_know_of_the_spine() -> None:
    """Upstream starts every chain from the root's rotation."""
    assert [HUMANML3D.turned_by[joint] for joint in (2, 1, 3, 14, 13)] == [0] * 5
    assert HUMANML3D.turned_by[16] == 13 and HUMANML3D.parents[13] == 9


def test_other_widths_are_refused() -> None:
    with pytest.raises(SuiteError, match=r"263 \(humanml3d\), 251 \(kit\)"):
        skeleton_of(135)
