"""Physical figures on motions whose answer is known."""

import pytest
import torch

from blocks.errors import SuiteError
from blocks.geometry.motion_skeleton import HUMANML3D, KIT, MotionSkeleton
from lightning_modules.motion.motion_clip import motion_clip, touching
from lightning_modules.motion.physics import PhysicalReport, physical_report
from tests.lightning_modules.motion.bodies import standing, walking

BOTH = pytest.mark.parametrize("skeleton", [HUMANML3D, KIT], ids=lambda s: s.name)


@BOTH
def test_a_gliding_body_slides_at_its_speed(skeleton: MotionSkeleton) -> None:
    still = standing(skeleton)
    steps = torch.arange(20)[:, None, None] * torch.tensor([0.0, 0.0, 0.8])
    report = physical_report(still + steps * skeleton.metre / skeleton.fps, skeleton)
    assert report.foot_sliding == pytest.approx(0.8, rel=1e-4)
    assert report.jitter == pytest.approx(0, abs=0.05)
    assert (report.penetration, report.floating) == (pytest.approx(0), 0)


@BOTH
def test_depth_and_height_are_in_millimetres(skeleton: MotionSkeleton) -> None:
    still = standing(skeleton).expand(6, -1, -1)
    up = torch.tensor([0.0, skeleton.metre, 0.0])
    assert physical_report(still - 0.03 * up, skeleton).penetration == pytest.approx(30, rel=1e-3)
    floating = physical_report(still + 0.25 * up, skeleton)
    assert floating.floating == pytest.approx(200, rel=1e-3)
    assert floating.foot_sliding != floating.foot_sliding  # No foot is ever near the floor.


def test_jitter_is_the_third_derivative() -> None:
    times = torch.arange(30, dtype=torch.float64) / HUMANML3D.fps
    joints = standing().double().expand(30, -1, -1).clone()
    joints[..., 0] += times[:, None].pow(3)
    assert physical_report(joints, HUMANML3D).jitter == pytest.approx(6, rel=1e-6)


def test_means_leave_out_what_a_clip_has_not() -> None:
    a, b = PhysicalReport(1.0, 2.0, 3.0, 4.0), PhysicalReport(float("nan"), 4.0, 5.0, 0.0)
    assert PhysicalReport.mean([a, b]) == PhysicalReport(1.0, 3.0, 4.0, 2.0)


def test_three_frames_have_no_third_derivative() -> None:
    with pytest.raises(SuiteError, match="4 frames"):
        physical_report(walking(3), HUMANML3D)


def test_feet_touch_where_they_stand_and_not_where_they_glide_or_hang() -> None:
    still = standing().expand(5, -1, -1).clone()
    assert touching(still, HUMANML3D)[:, [1, 3]].all()
    assert not touching(still + torch.tensor([0.0, 0.5, 0.0]), HUMANML3D).any()
    assert not touching(walking(5), HUMANML3D).any()
    clip = motion_clip("a", still, HUMANML3D)
    assert clip.contacts is not None and clip.contacts.shape == (5, 4)
    assert clip.joints[..., 2].min() == pytest.approx(0, abs=1e-6)
