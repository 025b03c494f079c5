"""A stream gives what the clip gives, in the same memory however long it runs."""

import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.cameras import normalise
from lightning_modules.pose import HybridLifter, MotionAGFormer, PoseLifting, StreamingLifter

SIZE = (640, 480)


def network(in_features: int = 3, causal: bool = True) -> HybridLifter:
    torch.manual_seed(0)
    built = HybridLifter(
        depth=2, dim=8, d_inner=16, dim_rep=8, in_features=in_features, causal=causal
    )
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built.eval()


def joints(frames: int) -> Tensor:
    torch.manual_seed(1)
    xy = torch.rand(frames, 17, 2) * torch.tensor(SIZE)
    return torch.cat((xy, torch.rand(frames, 17, 1) * 0.9 + 0.1), -1)


def batch(seen: Tensor) -> dict[str, Tensor]:
    xy = normalise(seen[..., :2], torch.tensor(SIZE))
    return {"keypoints": torch.cat((xy, seen[..., 2:]), -1).unsqueeze(0)}


@pytest.mark.parametrize("flip_test", [False, True])
def test_a_stream_equals_the_module_on_the_whole_clip(flip_test: bool) -> None:
    module = PoseLifting(network(), flip_test=flip_test).eval()
    seen = joints(100)
    with torch.no_grad():
        expected = module.predict_step(batch(seen), 0)["pose"][0]
    lifter = StreamingLifter(network(), SIZE, flip_test=flip_test)
    found = torch.stack([lifter(frame) for frame in seen])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.std(0).max() > 1e-2  # Time matters.
    lifter.reset()
    again = lifter(seen[0])
    torch.testing.assert_close(again, expected[0], rtol=0, atol=1e-5)
    assert not again.is_inference()  # A loss may follow.


def test_the_root_stays_where_it_is_said_when_asked() -> None:
    seen = joints(3)
    with torch.no_grad():
        expected = network()(batch(seen)["keypoints"])[0]
    lifter = StreamingLifter(network(), SIZE, root_relative=False)
    found = torch.stack([lifter(frame) for frame in seen])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found[:, 0].abs().min() > 0


def test_memory_does_not_grow_in_a_thousand_frames() -> None:
    lifter = StreamingLifter(network(), SIZE)
    before = lifter.nbytes
    for frame in joints(10).repeat(100, 1, 1):
        pose = lifter(frame)
    assert lifter.nbytes == before
    assert pose.isfinite().all()


def test_a_joint_that_is_lost_stays_where_it_was_without_confidence() -> None:
    seen = joints(6)
    filled = seen.clone()
    seen[2:4, 5] = torch.nan
    filled[2:4, 5] = torch.tensor([*filled[1, 5, :2], 0])
    seen[4, 9] = 0  # As OpenPose says it.
    filled[4, 9] = torch.tensor([*filled[3, 9, :2], 0])
    seen[0, 3, 0] = torch.nan
    filled[0, 3] = torch.tensor([320.0, 240.0, 0.0])  # Never seen yet: the middle.
    with torch.no_grad():
        expected = network()(batch(filled)["keypoints"])[0]
    lifter = StreamingLifter(network(), SIZE, root_relative=False)
    found = torch.stack([lifter(frame) for frame in seen])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_joints_without_confidence_are_taken_as_seen() -> None:
    seen = joints(4)
    certain = torch.cat((seen[..., :2], torch.ones(4, 17, 1)), -1)
    a, b = StreamingLifter(network(), SIZE), StreamingLifter(network(), SIZE)
    for frame, full in zip(seen[..., :2], certain, strict=True):
        assert torch.equal(a(frame), b(full))
    plain = StreamingLifter(network(in_features=2), SIZE)
    assert plain(seen[0]).shape == (17, 3)


def test_what_cannot_stream_is_refused() -> None:
    with pytest.raises(SuiteError, match="causal: true"):
        StreamingLifter(network(causal=False), SIZE)
    with pytest.raises(SuiteError, match="of 5 features"):
        StreamingLifter(network(in_features=5), SIZE)
    other = MotionAGFormer(depth=1, dim=8, num_frames=9, num_heads=2)
    with pytest.raises(SuiteError, match="MotionAGFormer"):
        StreamingLifter(other, SIZE)  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match=r"\(1, 17, 3\)"):
        StreamingLifter(network(), SIZE)(torch.zeros(1, 17, 3))
