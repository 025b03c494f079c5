"""Joint epochs leave nothing out, repeat nothing within an own epoch, and go on where they were."""

import pytest

from datamodules.joint_sampler import JointSampler
from datamodules.sampling import Draw, TrainSampler


def drawn(
    size: int, batch: int, steps: int, epochs: int, rank: int = 0, world: int = 1
) -> list[Draw]:
    joint = JointSampler(TrainSampler(size, seed=3, rank=rank, world=world), batch, steps)
    found: list[Draw] = []
    for epoch in range(epochs):
        joint.set_epoch(epoch)
        part = list(joint)
        assert len(part) == len(joint) == batch * steps
        found += part
    return found


@pytest.mark.parametrize(
    ("size", "batch", "steps"), [(12, 4, 7), (40, 4, 3), (13, 4, 5), (4, 4, 1)]
)
def test_own_epochs_follow_one_another(size: int, batch: int, steps: int) -> None:
    kept = size // batch * batch
    draws = drawn(size, batch, steps, epochs=6)
    whole = len(draws) // kept
    orders = []
    for epoch in range(whole):
        own = draws[epoch * kept : (epoch + 1) * kept]
        assert {draw.epoch for draw in own} == {epoch}
        assert [draw.position for draw in own] == list(range(kept))
        assert len({draw.index for draw in own}) == kept
        orders.append(tuple(draw.index for draw in own))
    assert whole == 1 or len(set(orders)) > 1


def test_a_joint_epoch_goes_on_after_the_steps_taken() -> None:
    whole = drawn(13, 4, 5, epochs=3)
    joint = JointSampler(TrainSampler(13, seed=3), 4, 5)
    joint.resume(1, 3)
    assert list(joint) == list(joint) == whole[20 + 12 : 40]
    joint.set_epoch(2)
    assert list(joint) == whole[40:]


def test_processes_share_the_order() -> None:
    one = [draw for draw in drawn(24, 8, 3, epochs=2)]
    two = [drawn(24, 4, 3, epochs=2, rank=rank, world=2) for rank in range(2)]
    assert [draw for pair in zip(*two, strict=True) for draw in pair] == one
