"""Augmentation: what it does, and that the seed, epoch and position alone decide it."""

from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M
from datamodules.pose import Human36MDataModule, PoseAugment
from datamodules.pose.transforms import ClipTransform, detector_noise, mirror


def raw(frames: int = 9) -> dict[str, Any]:
    random = np.random.RandomState(0)
    return {
        "keypoints": random.rand(frames, 17, 2).astype(np.float32) * 1000,
        "confidence": random.rand(frames, 17).astype(np.float32),
        "pose": random.rand(frames, 17, 3).astype(np.float32) * 1000,
        "size": np.array([1000.0, 1002.0]),
        "source": "video",
        "index": 3,
    }


def transform(**options: Any) -> ClipTransform:
    augment = PoseAugment(**{"flip": 0.0, **options})
    return ClipTransform(H36M, "detected", True, False, augment)


def test_a_flipped_clip_is_the_mirrored_person() -> None:
    plain, flipped = transform()(raw()), transform(flip=1.0)(raw())
    for key in ("keypoints", "pose"):
        torch.testing.assert_close(flipped[key][:, 3, 0], -plain[key][:, 6, 0])
        torch.testing.assert_close(flipped[key][:, 3, 1:], plain[key][:, 6, 1:])
        torch.testing.assert_close(mirror(flipped[key], list(H36M.mirrored)), plain[key])


def test_velocities_of_a_flipped_clip_are_mirrored_too() -> None:
    """Upstream flips after it has taken the steps, and leaves their signs as they were."""
    flip = ClipTransform(H36M, "detected", True, True, PoseAugment(flip=1.0))
    x = flip(raw())["keypoints"]
    torch.testing.assert_close(x[1:, :, 0] - x[:-1, :, 0], x[:-1, :, 3])


def test_masks_hide_joints_or_whole_frames() -> None:
    torch.manual_seed(0)
    joints = transform(joint_mask=0.5)(raw(200))["keypoints"]
    hidden = (joints == 0).all(-1).float()
    assert 0.45 < hidden.mean() < 0.55 and not (hidden.mean(1) == 1).any()
    frames = transform(frame_mask=0.5)(raw(200))["keypoints"]
    hidden = (frames == 0).all(-1).float().mean(1)
    assert set(hidden.tolist()) == {0.0, 1.0} and 0.35 < hidden.mean() < 0.65


def test_confidence_dropout_leaves_places_alone() -> None:
    dropped, plain = transform(confidence_dropout=1.0)(raw()), transform()(raw())
    assert (dropped["keypoints"][..., 2] == 1).all()
    assert torch.equal(dropped["keypoints"][..., :2], plain["keypoints"][..., :2])


def test_noise_is_slow_and_confidence_falls_with_it() -> None:
    torch.manual_seed(0)
    clean = torch.zeros(243, 17, 3)
    noisy = detector_noise(clean, 1.0)
    distance = noisy[..., :2].norm(dim=-1)
    assert 0.002 < distance.mean() < 0.06
    step = noisy[..., :2].diff(dim=0).norm(dim=-1)
    assert step.mean() < distance.mean(), "neighbouring frames err alike"
    both = torch.stack((distance.flatten(), noisy[..., 2].flatten()))
    assert torch.corrcoef(both)[0, 1] < -0.3
    assert noisy[..., 2].min() >= 0 and noisy[..., 2].max() <= 1
    double = detector_noise(clean, 2.0)[..., :2].norm(dim=-1).mean()
    assert 1.6 < double / distance.mean() < 2.4


@pytest.mark.parametrize("name", ["flip", "joint_mask", "frame_mask", "confidence_dropout"])
def test_impossible_probabilities_are_refused(name: str) -> None:
    with pytest.raises(SuiteError, match=name):
        PoseAugment(**{name: 1.5})


def test_samples_depend_on_neither_workers_nor_history() -> None:
    everything = PoseAugment(0.5, noise=1.0, joint_mask=0.1, frame_mask=0.1, confidence_dropout=0.3)

    def epoch(workers: int, number: int) -> list[torch.Tensor]:
        data = Human36MDataModule(
            preset="tiny", num_frames=54, batch_size=100, num_workers=workers, augment=everything
        )
        data.prepare_data()
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
        return [batch["keypoints"] for batch in loader]

    alone, helped, later = epoch(0, 0), epoch(2, 0), epoch(0, 1)
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert not torch.equal(alone[0], later[0])
