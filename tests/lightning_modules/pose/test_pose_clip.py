"""Axes of a display, and how tall a skeleton is."""

import numpy as np
import pytest

from blocks.geometry.skeleton import H36M, MPI_INF_3DHP, Skeleton
from lightning_modules.pose.pose_clip import PoseClip, body_height, displayed


def test_the_third_axis_of_a_display_points_up_and_the_first_to_the_right() -> None:
    right, down, away = np.eye(3, dtype=np.float32)
    assert displayed(right).tolist() == [1, 0, 0]
    assert displayed(down).tolist() == [0, 0, -1]
    assert displayed(away).tolist() == [0, 1, 0]
    turned = np.stack([displayed(axis) for axis in np.eye(3, dtype=np.float32)])
    assert np.linalg.det(turned) == pytest.approx(1)  # Left stays left.


@pytest.mark.parametrize(("skeleton", "trunk"), [(H36M, 4), (MPI_INF_3DHP, 4)])
def test_a_body_is_as_tall_as_its_bones_however_it_is_bent(skeleton: Skeleton, trunk: int) -> None:
    # Every bone is 100 long and points anywhere.
    random = np.random.default_rng(0)
    poses = np.zeros((5, 17, 3), dtype=np.float32)
    done = {skeleton.root}
    while len(done) < 17:
        for parent, child in skeleton.bones:
            if parent in done and child not in done:
                step = random.normal(size=(5, 3))
                step *= 100 / np.linalg.norm(step, axis=1, keepdims=True)
                poses[:, child] = poses[:, parent] + step
                done.add(child)
    assert body_height(poses, skeleton) == pytest.approx(100 * (trunk + 2), rel=1e-5)
    poses[0] *= 50  # One bad frame does not make a giant.
    assert body_height(poses, skeleton) == pytest.approx(100 * (trunk + 2), rel=1e-5)


def test_titles_say_where_the_origin_is_and_the_unit() -> None:
    poses = np.zeros((1, 17, 3), dtype=np.float32)
    assert PoseClip("a", poses, H36M, "mm", True, 50).caption == "root-relative, mm"
    assert PoseClip("a", poses, H36M, "mm", False, 50).caption == "camera-space, mm"
