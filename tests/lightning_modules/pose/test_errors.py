"""Errors of poses against the originals, and at the edges."""

import numpy as np
import torch
from torch import Tensor

from lightning_modules.pose.errors import (
    acceleration_errors,
    aligned,
    bone_lengths,
    joint_errors,
    scaled,
    velocity_errors,
)
from tests.conftest import GOLDEN

VECTORS = np.load(GOLDEN / "pose" / "losses_metrics.npz")


def get(name: str) -> Tensor:
    return torch.from_numpy(VECTORS[name])


def close(found: Tensor, name: str, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, get(name), rtol=tolerance, atol=tolerance)


def test_per_frame_errors_equal_the_originals() -> None:
    p, t = get("mm/pred"), get("mm/gt")
    close(joint_errors(p, t), "mm/jpe")
    close(joint_errors(p, t).mean(1), "mm/mpjpe_frame")
    close(joint_errors(aligned(p, t), t).mean(1), "mm/p_mpjpe_frame", 1e-8)
    close(acceleration_errors(p, t), "mm/acc_error_frame")
    close(joint_errors(scaled(p, t), t).mean(), "mm/vp3d_n_mpjpe")
    close(joint_errors(aligned(p, t), t).mean(), "mm/vp3d_p_mpjpe", 1e-8)
    close(velocity_errors(p, t).mean(), "mm/vp3d_mpjve")


def test_a_mirrored_body_is_not_turned_inside_out() -> None:
    t = get("mm/gt")
    mirrored = t * torch.tensor([-1.0, 1.0, 1.0], dtype=t.dtype)
    close(joint_errors(aligned(mirrored, t), t).mean(1), "edge/mirror_p_mpjpe", 1e-7)


def test_a_similar_body_is_the_same_body() -> None:
    t, similar = get("mm/gt"), get("edge/similar")
    close(joint_errors(similar, t).mean(1), "edge/similar_mpjpe")
    assert joint_errors(aligned(similar, t), t).max() < 1e-6


def test_bones_are_measured_from_parent_to_child() -> None:
    pose = torch.tensor([[[0.0, 0, 0], [3, 4, 0], [3, 4, 2]]])
    assert bone_lengths(pose, ((0, 1), (1, 2))).tolist() == [[5, 2]]
