"""Points and pixels of a depth camera, against ESAM's own arithmetic."""

from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.geometry.projection import (
    in_view,
    project_points,
    rescaled_intrinsics,
    seen_points,
    unproject,
)


@pytest.fixture
def uvd(golden: Path) -> dict[str, torch.Tensor]:
    arrays = np.load(golden / "scannet" / "annotations.npz")
    names = [name for name in arrays.files if name.startswith("uvd/")]
    return {name.removeprefix("uvd/"): torch.from_numpy(arrays[name]).double() for name in names}


def test_back_projection_is_that_of_upstream(uvd: dict[str, torch.Tensor]) -> None:
    pixels = torch.stack((uvd["u"], uvd["v"]), 1)
    xyz = unproject(pixels, uvd["depth_mm"] / 1000, uvd["pose"], uvd["K"])
    torch.testing.assert_close(xyz, uvd["xyz"], rtol=0, atol=1e-9)


def test_projection_finds_the_pixels_again(uvd: dict[str, torch.Tensor]) -> None:
    pixels, depth = project_points(uvd["xyz"], uvd["pose"], uvd["K"])
    torch.testing.assert_close(pixels, torch.stack((uvd["u"], uvd["v"]), 1), rtol=0, atol=1e-9)
    torch.testing.assert_close(depth, uvd["depth_mm"] / 1000, rtol=0, atol=1e-12)


def test_intrinsics_are_rescaled_as_upstream_does(uvd: dict[str, torch.Tensor]) -> None:
    original = torch.eye(4, dtype=torch.float64)
    original[0, 0] = original[1, 1] = 1170.187988
    original[0, 2], original[1, 2] = 647.75, 483.75
    found = rescaled_intrinsics(original, (1296, 968), (640, 480))
    expected = uvd["K_1296x968_to_640x480"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_points_outside_or_behind_are_not_in_view() -> None:
    pixels = torch.tensor([[0.0, 0.0], [639.0, 479.0], [-0.5, 3.0], [3.0, 479.5], [5.0, 5.0]])
    depth = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0])
    assert in_view(pixels, depth, 640, 480).tolist() == [True, True, False, False, False]


def test_a_wall_hides_what_is_behind_it() -> None:
    image = torch.full((4, 6), 2.0)
    image[0, 0] = 0  # nothing measured
    pixels = torch.tensor([[3.0, 2.0], [3.0, 2.0], [3.0, 2.0], [0.0, 0.0], [9.0, 2.0]])
    depth = torch.tensor([2.07, 2.3, 1.7, 2.0, 2.0])
    assert seen_points(pixels, depth, image).tolist() == [True, False, False, False, False]
