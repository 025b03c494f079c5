"""Cameras against VideoPose3D's own numbers, and against their definitions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.files import load_npz
from blocks.geometry.cameras import (
    camera_to_world,
    conjugate,
    denormalise,
    image_factor,
    image_pose,
    normalise,
    project,
    rotate,
    world_to_camera,
)
from blocks.geometry.h36m_cameras import H36M_CAMERAS, H36M_POSITIONS

REMOVED = [4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31]


def a_pose(frames: int = 3) -> torch.Tensor:
    """Bodies some five metres before the camera, millimetres."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(frames, 17, 3, generator=generator, dtype=torch.float64) * 300
    return pose + torch.tensor([100.0, -50.0, 5000.0])


def test_world_to_image_is_videopose3d(golden: Path) -> None:
    expected = np.load(golden / "pose" / "videopose3d_expected.npz")
    positions = load_npz(golden / "pose" / "data_3d_h36m_tiny.npz")["positions_3d"]
    kept = [joint for joint in range(32) if joint not in REMOVED]
    compared = 0
    for subject, actions in positions.items():
        for action, world in actions.items():
            for number, camera in enumerate(H36M_CAMERAS):
                orientation, place = H36M_POSITIONS[int(subject[1:])][number]
                key = f"{subject}/{action}/{number}"
                points = torch.from_numpy(world[:, kept])
                found = world_to_camera(
                    points, torch.tensor(orientation), torch.tensor(place) / 1000
                )
                pixels = project(found, camera)
                size = torch.tensor([camera.width, camera.height])
                for name, value, atol in (
                    ("cam", found, 1e-5),
                    ("px", pixels, 1e-3),
                    ("norm", normalise(pixels, size).double(), 1e-5),
                ):
                    wanted = torch.from_numpy(expected[f"{key}/{name}"])
                    torch.testing.assert_close(value, wanted, rtol=1e-4, atol=atol)
                    compared += 1
    assert compared == len([key for key in expected if "/" in key])


def test_a_quarter_turn_about_z() -> None:
    half = 0.5**0.5
    turned = rotate(torch.tensor([half, 0, 0, half]), torch.tensor([[1.0, 2.0, 3.0]]))
    torch.testing.assert_close(turned, torch.tensor([[-2.0, 1.0, 3.0]]))


def test_camera_to_world_is_the_way_back() -> None:
    orientation = torch.tensor(H36M_POSITIONS[9][2][0], dtype=torch.float64)
    orientation /= orientation.norm()
    place = torch.tensor(H36M_POSITIONS[9][2][1], dtype=torch.float64)
    points = a_pose()
    there = world_to_camera(points, orientation, place)
    torch.testing.assert_close(camera_to_world(there, orientation, place), points)
    torch.testing.assert_close(rotate(conjugate(orientation), rotate(orientation, points)), points)


def test_every_camera_stands_upright_and_looks_at_the_room() -> None:
    for positions in H36M_POSITIONS.values():
        for orientation, place in positions:
            q = torch.tensor(orientation)
            assert q.norm().item() == pytest.approx(1, abs=1e-5)
            down = rotate(q, torch.tensor([0.0, 1.0, 0.0]))
            assert down[2] < -0.9, "y of the image points to the ground"
            middle = world_to_camera(torch.tensor([0.0, 0, 1000]), q, torch.tensor(place))
            assert middle[2] > 3000


def test_a_point_on_the_axis_is_at_the_centre_whatever_the_lens() -> None:
    for camera in H36M_CAMERAS:
        centre = project(torch.tensor([0.0, 0.0, 4000.0]), camera)
        torch.testing.assert_close(centre, torch.tensor(camera.centre))


def test_normalised_corners_and_the_way_back() -> None:
    size = torch.tensor([1000.0, 1002.0])
    corners = torch.tensor([[0.0, 0.0, 500.0], [1000.0, 1002.0, -500.0]])
    found = normalise(corners, size)
    torch.testing.assert_close(found, torch.tensor([[-1, -1.002, 1], [1, 1.002, -1]]))
    torch.testing.assert_close(denormalise(found, size), corners)


def test_each_clip_has_its_own_size() -> None:
    sizes = torch.tensor([[1000.0, 1002.0], [1920.0, 1080.0]], dtype=torch.float64)
    points = torch.rand(2, 5, 17, 3) * 1000
    found = normalise(points, sizes)
    assert found.dtype == torch.float32
    for clip, size, alone in zip(points, sizes, found, strict=True):
        torch.testing.assert_close(normalise(clip, size), alone)
    torch.testing.assert_close(denormalise(found, sizes), points, rtol=1e-5, atol=1e-3)


def test_depth_in_the_image_is_the_width_of_a_box_of_two_metres() -> None:
    """By lcn-pose: the box of +-1 m around the root, projected at the root's depth."""
    camera = replace(H36M_CAMERAS[0], radial=(0, 0, 0), tangential=(0, 0))
    pose = a_pose()
    root = pose[:, 0]
    left, right = (
        project(root + torch.tensor([side, 0.0, 0.0]), camera)[:, 0] for side in (-1000, 1000)
    )
    ratio = (right - left + 1) / 2000
    found = image_pose(pose, camera)
    torch.testing.assert_close(found[..., 2], ratio[:, None] * (pose[..., 2] - root[:, 2:]))
    torch.testing.assert_close(found[..., :2], project(pose, camera))


def test_the_factor_is_that_of_least_squares() -> None:
    pose = a_pose()
    image = image_pose(pose, H36M_CAMERAS[1])
    factor = image_factor(image, pose)
    a, b = (x - x[:, :1] for x in (image, pose))

    def rest(f: torch.Tensor) -> torch.Tensor:
        return (f[:, None, None] * a - b).square().sum((1, 2))

    assert (rest(factor) < rest(factor * 1.001)).all() and (
        rest(factor) < rest(factor * 0.999)
    ).all()
    assert ((factor > 4) & (factor < 5)).all(), "five metres and 1150 px give some 4.3 mm per px"
