"""Augmentation: against the definitions, and what must not change."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import convolve

from datamodules.sampling import seeded
from datamodules.scannet.batches import collate
from datamodules.scannet.elastic import distorted
from datamodules.scannet.transforms import (
    COLOR_MEAN,
    COLOR_STD,
    NO_AUGMENT,
    PointAugment,
    PointTransform,
    clip_image,
    clip_size,
)


def raw_frame(points: int = 50, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    xyz = np.concatenate((rng.uniform(-0.4, 0.4, (points, 2)), rng.uniform(1, 3, (points, 1))), 1)
    return {
        "xyz": xyz.astype(np.float32),
        "rgb": rng.integers(0, 255, (points, 3)).astype(np.uint8),
        "instance": rng.integers(-1, 4, points),
        "semantic": rng.integers(0, 201, points),
        "superpoint": np.unique(rng.integers(0, 9, points), return_inverse=True)[1],
        "pose": np.eye(4),
        "intrinsics": np.array([(577.0, 0, 319.5), (0, 577, 239.5), (0, 0, 1)]),
        "image_size": (640, 480),
        "image": Image.new("RGB", (640, 480), (10, 200, 90)),
        "frame": f"scene0000_00/{seed}",
        "index": seed,
    }


def transformed(augment: PointAugment, seed: int = 0, **options: Any) -> dict[str, Any]:
    given = {"color": True, "evaluate": False, "image_height": None, "all_in_view": True}
    with seeded(seed, 0, 0):
        return PointTransform(augment, **{**given, **options})(raw_frame())


def test_elastic_distortion_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    xyz = (rng.normal(0, 40, (300, 3))).astype(np.float32)
    np.random.seed(3)
    found = distorted(xyz, 6.0, 40.0)
    np.random.seed(3)
    shape = np.abs(xyz).max(0).astype(int) // 6 + 3
    noise = [np.random.randn(*shape).astype(np.float32) for _ in range(3)]
    for along in (0, 1, 2, 0, 1, 2):
        kernel = np.ones([3 if axis == along else 1 for axis in range(3)], np.float32) / 3
        noise = [convolve(n, kernel, mode="constant", cval=0) for n in noise]
    axes = [np.linspace(-(n - 1) * 6, (n - 1) * 6, n) for n in shape]
    fields = [RegularGridInterpolator(axes, n, bounds_error=False, fill_value=0) for n in noise]
    expected = xyz + np.stack([field(xyz) for field in fields], 1) * 40
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found - xyz).max() > 1


def test_pixels_are_found_before_anything_moves() -> None:
    """The reference moved the points first and projected them with the old pose."""
    still, moved = transformed(NO_AUGMENT), transformed(PointAugment())
    torch.testing.assert_close(still["uv"], moved["uv"])
    assert still["uv_valid"].all() and moved["uv_valid"].all()
    torch.testing.assert_close(still["original_xyz"], moved["original_xyz"])
    assert (still["xyz"] - moved["xyz"]).abs().max() > 0.01


def test_rigid_moves_keep_shapes_up_to_the_scale() -> None:
    sample = transformed(PointAugment(elastic=0.0), seed=5)
    before, after = (torch.pdist(sample[key]) for key in ("original_xyz", "xyz"))
    ratio = after / before
    assert ratio.std() < 1e-4 and 0.8 <= ratio.mean() <= 1.2
    heights = sample["xyz"][:, 2] - sample["original_xyz"][:, 2] * ratio.mean()
    assert heights.std() < 1e-4, "the vertical stays vertical"
    torch.testing.assert_close(sample["grid_xyz"], sample["xyz"])


def test_elastic_moves_the_grid_alone() -> None:
    sample = transformed(PointAugment(elastic=1.0))
    away = (sample["grid_xyz"] - sample["xyz"]).norm(dim=1)
    assert 0.01 < away.mean() < 2


def test_every_probability_of_one_and_zero_is_kept() -> None:
    flipped = transformed(PointAugment(1.0, 0, (1, 1), 0, 0))
    torch.testing.assert_close(
        flipped["xyz"], flipped["original_xyz"] * torch.tensor([-1.0, -1, 1])
    )
    still = transformed(NO_AUGMENT)
    torch.testing.assert_close(still["xyz"], still["original_xyz"])


def test_colours_are_normalised_once_and_can_be_withheld() -> None:
    raw = raw_frame()
    sample = transformed(NO_AUGMENT)
    expected = (raw["rgb"].astype(float) - COLOR_MEAN) / COLOR_STD
    np.testing.assert_allclose(sample["color"].numpy(), expected, atol=1e-5)
    assert sample["color"].abs().max() < 4
    assert not transformed(NO_AUGMENT, color=False)["color"].any()


def test_the_image_keeps_its_aspect_to_a_patch() -> None:
    assert clip_size(640, 480, 224) == (304, 224)
    assert clip_size(1296, 968, 224) == (304, 224)
    image = clip_image(Image.new("RGB", (640, 480), (0, 255, 0)), 224)
    assert image.shape == (3, 224, 304)
    expected = torch.tensor([(0 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258])
    torch.testing.assert_close(image[:2, 100, 100], expected)


def test_a_cap_keeps_rows_together_and_superpoints_without_gaps() -> None:
    capped = transformed(PointAugment(0, 0, (1, 1), 0, 0, max_points=20))
    whole = transformed(NO_AUGMENT)
    assert len(capped["xyz"]) == 20
    numbers = capped["superpoint"].unique()
    assert numbers.tolist() == list(range(len(numbers)))
    place = [(whole["xyz"] == row).all(1).nonzero().item() for row in capped["xyz"]]
    for key in ("instance", "semantic", "uv", "color"):
        torch.testing.assert_close(capped[key], whole[key][place])


@pytest.mark.parametrize("image_height", [None, 32])
def test_a_batch_numbers_superpoints_through(image_height: int | None) -> None:
    transform = PointTransform(NO_AUGMENT, True, True, image_height, True)
    samples = [transform(raw_frame(points, seed)) for seed, points in enumerate((50, 20, 31))]
    batch = collate(samples)
    assert batch["sample"].bincount().tolist() == [50, 20, 31]
    start = 0
    for k, sample in enumerate(samples):
        here = batch["sample"] == k
        torch.testing.assert_close(batch["superpoint"][here], sample["superpoint"] + start)
        torch.testing.assert_close(batch["semantic"][here], sample["semantic"])
        start += int(sample["superpoint"].max()) + 1
    numbers = batch["superpoint"].unique()
    assert numbers.tolist() == list(range(start))
    assert batch["image_size"].tolist() == [[640, 480]] * 3
    assert batch["pose"].shape == (3, 4, 4) and batch["intrinsics"].shape == (3, 3, 3)
    assert batch["frame"] == [f"scene0000_00/{k}" for k in range(3)]
    assert batch["index"].tolist() == [0, 1, 2]
    assert batch["rgb"].dtype == torch.uint8 and ("image" in batch) == (image_height is not None)
