"""Features of motion against vectors of the original notebook, and against their own inverse."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.motion_features import (
    canonical_joints,
    extract_features,
    fitted,
    mirror,
    recover_from_rotations,
    recover_joints,
    repair_heading,
    target_offsets,
    wrapped_frames,
)
from blocks.geometry.motion_rotations import turned
from blocks.geometry.motion_skeleton import HUMANML3D, KIT, MotionSkeleton
from datamodules.motion.body import posed, resting

CASES = [
    ("features_t2m", HUMANML3D, 1e-4),
    ("features_t2m_b", HUMANML3D, 1e-4),
    ("features_kit", KIT, 5e-3),
]
TYPES = [torch.float32, torch.float64]


def vectors(golden: Path, name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    with np.load(golden / "motion" / f"{name}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])).to(dtype) for key in stored.files}


def wanderer(seed: int, frames: int = 80) -> Tensor:
    """Somebody who turns about wildly, limbs in motion, joints (T, 22, 3)."""
    random = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None] / 20
    waves = random.uniform(0.5, 3, (1, 22, 3)) * t + random.uniform(0, 6, (1, 22, 3))
    angles = resting(frames) + random.uniform(0, 0.3) * np.sin(waves)
    speed = random.normal(0, 2.5) + 2 * np.sin(random.uniform(0.3, 2) * t[:, 0, 0])
    heading = random.uniform(0, 6) + np.cumsum(speed) / 20
    joints = posed(angles, heading)
    joints += np.cumsum(random.normal(0, 0.03, (frames, 1, 3)), 0) * (1, 0.1, 1)
    return torch.from_numpy(joints)


def wanderers(seeds: range) -> Tensor:
    """Many of them, (N, T, 22, 3)."""
    return torch.stack([wanderer(seed) for seed in seeds])


def error(joints: Tensor, mode: str, skeleton: MotionSkeleton = HUMANML3D) -> float:
    features = extract_features(joints, skeleton, mode=mode)  # type: ignore[arg-type]
    assert features.isfinite().all()
    expected = canonical_joints(joints, skeleton, mode=mode)[..., :-1, :, :]  # type: ignore[arg-type]
    return float((recover_joints(features, skeleton) - expected).abs().max())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name, skeleton, tolerance", CASES)
def test_compat_gives_the_features_of_the_notebook(
    golden: Path, name: str, skeleton: MotionSkeleton, tolerance: float, dtype: torch.dtype
) -> None:
    z = vectors(golden, name, dtype)
    close = {"atol": tolerance, "rtol": 1e-4}
    offsets = z["target_offsets"]
    uniform = fitted(z["joints_in"], skeleton, offsets, guard=False)
    torch.testing.assert_close(uniform, z["uniform"], **close)
    canonical = canonical_joints(z["joints_in"], skeleton, offsets, "compat")
    torch.testing.assert_close(canonical, z["global_positions"], **close)
    features = extract_features(z["joints_in"], skeleton, offsets, "compat")
    torch.testing.assert_close(features, z["features"], **close)
    assert features.dtype == dtype


@pytest.mark.parametrize("name, skeleton, tolerance", CASES)
def test_recovery_gives_the_joints_of_the_notebook(
    golden: Path, name: str, skeleton: MotionSkeleton, tolerance: float
) -> None:
    z = vectors(golden, name, torch.float32)
    close = {"atol": tolerance, "rtol": 1e-4}
    joints = recover_joints(z["features"], skeleton)
    torch.testing.assert_close(joints, z["recovered_joints"], **close)
    turned_bones = recover_from_rotations(z["features"], skeleton, z["target_offsets"])
    torch.testing.assert_close(turned_bones, z["recovered_joints_from_rot"], **close)
    batch = torch.stack((z["features"], z["features"].flip(0)))
    torch.testing.assert_close(recover_joints(batch, skeleton)[0], joints)


def test_a_wrapped_heading_is_found_and_put_right_from_the_features_alone(golden: Path) -> None:
    z = vectors(golden, "features_t2m_b", torch.float32)
    truth = z["global_positions"][:-1]
    assert wrapped_frames(z["features"], HUMANML3D).nonzero().flatten().tolist() == [33]
    assert (recover_joints(z["features"], HUMANML3D) - truth).abs().max() > 0.1
    repaired = repair_heading(z["features"], HUMANML3D)
    assert not wrapped_frames(repaired, HUMANML3D).any()
    torch.testing.assert_close(repaired[:, 1:], z["features"][:, 1:])
    torch.testing.assert_close(recover_joints(repaired, HUMANML3D), truth, atol=1e-5, rtol=0)


def test_sound_features_are_left_alone(golden: Path) -> None:
    for name, skeleton in (("features_t2m", HUMANML3D), ("features_kit", KIT)):
        features = vectors(golden, name, torch.float32)["features"]
        assert not wrapped_frames(features, skeleton).any()
        assert torch.equal(repair_heading(features, skeleton), features)


def test_repaired_extraction_recovers_the_clip_that_compat_turns_wrongly(golden: Path) -> None:
    """Both tell the same motion; they differ in the direction of the first frame."""
    z = vectors(golden, "features_t2m_b", torch.float64)
    features = extract_features(z["joints_in"], HUMANML3D, z["target_offsets"])
    recovered = recover_joints(features, HUMANML3D)
    truth = z["global_positions"][:-1]
    across = [joints[0, 1] - joints[0, 2] for joints in (recovered, truth)]
    angles = [torch.atan2(v[0], v[2]) for v in across]
    torch.testing.assert_close(turned(recovered, angles[1] - angles[0]), truth, atol=1e-4, rtol=0)


def test_two_hundred_turning_clips_come_back() -> None:
    assert error(wanderers(range(200)), "repaired") < 1e-9


def test_clips_come_back_in_single_precision() -> None:
    assert error(wanderers(range(200, 240)).float(), "repaired") < 1e-4


def test_many_clips_at_once_are_those_clips() -> None:
    clips = wanderers(range(3))
    for mode in ("compat", "repaired"):
        together = extract_features(clips, HUMANML3D, clips[0, 0] * 1.1, mode)
        for clip, features in zip(clips, together, strict=True):
            alone = extract_features(clip, HUMANML3D, clips[0, 0] * 1.1, mode)
            torch.testing.assert_close(features, alone)


@pytest.mark.slow
def test_ten_thousand_turning_clips_come_back() -> None:
    starts = range(0, 10_000, 100)
    errors = [error(wanderers(range(s, s + 100)).float(), "repaired") for s in starts]
    assert max(errors) < 1e-4


def test_compat_loses_some_turning_clips_and_repair_brings_them_back() -> None:
    clips = wanderers(range(60))
    features = extract_features(clips, HUMANML3D, mode="compat")
    truth = canonical_joints(clips, HUMANML3D, mode="compat")[:, :-1]
    off = (recover_joints(features, HUMANML3D) - truth).abs().flatten(1).amax(1)
    wrapped = wrapped_frames(features, HUMANML3D).any(1)
    assert 0 < wrapped.sum() < len(clips)
    assert (off[wrapped] > 1e-2).all() and (off[~wrapped] < 1e-6).all()
    found = recover_joints(repair_heading(features, HUMANML3D), HUMANML3D)
    torch.testing.assert_close(found, truth, atol=1e-6, rtol=0)


def test_repaired_headings_follow_the_body_and_compat_ones_do_not() -> None:
    """The notebook swaps the hips: r jumps about, which the true heading does not."""
    turns = {
        mode: extract_features(wanderer(3), HUMANML3D, mode=mode)[:, 0].diff().abs().max()
        for mode in ("compat", "repaired")
    }  # type: ignore[misc]
    assert turns["compat"] > 3 * turns["repaired"]


def test_rotations_recover_what_places_recover() -> None:
    clip = wanderer(5)
    offsets = target_offsets(clip[0], HUMANML3D)
    features = extract_features(clip, HUMANML3D, offsets)
    by_places = recover_joints(features, HUMANML3D)
    by_rotations = recover_from_rotations(features, HUMANML3D, offsets)
    torch.testing.assert_close(by_rotations, by_places, atol=1e-6, rtol=0)


def test_features_do_not_know_where_the_clip_was_or_whither_it_faced() -> None:
    clip = wanderer(7)
    moved = turned(clip, torch.tensor(2.1).double()) + torch.tensor((3.0, 1.0, -2.0)).double()
    torch.testing.assert_close(
        extract_features(moved, HUMANML3D), extract_features(clip, HUMANML3D), atol=1e-9, rtol=0
    )


def test_mirroring_exchanges_sides_and_turns() -> None:
    clip = wanderer(11)
    assert torch.equal(mirror(mirror(clip, HUMANML3D), HUMANML3D), clip)
    features = extract_features(clip, HUMANML3D)
    other = extract_features(mirror(clip, HUMANML3D), HUMANML3D)
    torch.testing.assert_close(other[:, 0], -features[:, 0])
    torch.testing.assert_close(other[:, 1], -features[:, 1], atol=1e-9, rtol=0)
    torch.testing.assert_close(other[:, 2:4], features[:, 2:4], atol=1e-9, rtol=0)
    torch.testing.assert_close(other[:, [259, 260, 261, 262]], features[:, [261, 262, 259, 260]])


def test_opposite_directions_give_numbers_in_repaired_mode_and_nan_upstream() -> None:
    rest = torch.from_numpy(posed(resting(5), np.zeros(5)))
    upright = target_offsets(rest[0], HUMANML3D)
    on_the_head = rest.clone()
    # A neck exactly opposite to its direction at rest.
    on_the_head[:, 12] = on_the_head[:, 9] - torch.tensor((0.0, 0.2, 0.0)).double()
    on_the_head[:, 15] = on_the_head[:, 12] + torch.tensor((0.0, 0.0, 0.1)).double()
    assert extract_features(on_the_head, HUMANML3D, mode="compat").isnan().any()
    assert extract_features(on_the_head, HUMANML3D, upright).isfinite().all()
    assert error(on_the_head, "repaired") < 1e-9


def test_somebody_who_lies_on_the_side_still_has_numbers() -> None:
    clip = wanderer(2, 30)
    lying = torch.stack((clip[..., 1], clip[..., 0], clip[..., 2]), -1)
    lying[:, [1, 2, 16, 17], 0] = lying[:, [1], 0]
    lying[:, [1, 2, 16, 17], 2] = lying[:, [1], 2]
    assert extract_features(lying, HUMANML3D).isfinite().all()


def test_feet_touch_the_ground_while_they_stand() -> None:
    still = torch.from_numpy(posed(resting(30), np.zeros(30)))
    assert (extract_features(still, HUMANML3D)[:, -4:] == 1).all()
    sliding = still + torch.linspace(0, 3, 30).view(-1, 1, 1).double()
    assert (extract_features(sliding, HUMANML3D)[:, -4:] == 0).all()


def test_fitting_scales_the_path_with_the_legs() -> None:
    clip = wanderer(4)
    offsets = target_offsets(clip[0], HUMANML3D)
    grown = fitted(clip * 1.3, HUMANML3D, offsets)
    torch.testing.assert_close(grown, fitted(clip, HUMANML3D, offsets), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(10, 21, 3), (10, 22, 2), (1, 22, 3), (10, 66)])
def test_joints_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SuiteError, match="found: shape"):
        extract_features(torch.zeros(shape), HUMANML3D)


def test_the_turn_is_half_the_yaw() -> None:
    heading = np.linspace(0, math.pi / 2, 91)
    features = extract_features(torch.from_numpy(posed(resting(91), heading)), HUMANML3D)
    middle = features[40:50, 0]
    # r leads from the heading to +z, so it turns against the body.
    torch.testing.assert_close(
        middle, torch.full((10,), -math.radians(0.5)).double(), atol=1e-4, rtol=0.02
    )
