"""Windows cover every frame once in weight, whatever the length."""

import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.pose.windows import lift_in_windows, window_starts


def identity(clips: Tensor) -> Tensor:
    return clips[..., :3]


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 9, 10, 17, 30])
@pytest.mark.parametrize("stride", [1, 4, 9])
def test_a_network_that_changes_nothing_gives_the_sequence_back(frames: int, stride: int) -> None:
    keypoints = torch.randn(frames, 17, 3)
    found = lift_in_windows(identity, keypoints, 9, stride)
    torch.testing.assert_close(found, keypoints)


def test_windows_cover_the_end() -> None:
    assert window_starts(20, 9, 4) == [0, 4, 8, 11]
    assert window_starts(9, 9, 9) == [0]
    with pytest.raises(SuiteError, match="1 to the 9 frames"):
        window_starts(20, 9, 10)


def test_the_middle_of_a_window_outweighs_its_ends() -> None:
    def number(clips: Tensor) -> Tensor:
        return torch.arange(len(clips)).view(-1, 1, 1, 1).expand(-1, 5, 1, 3).float()

    found = lift_in_windows(number, torch.zeros(8, 1, 3), 5, 3)[:, 0, 0]
    # Frame 3 is fourth of the first window (weight 2) and first of the second (weight 1).
    assert found.tolist() == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1])


def test_a_short_sequence_is_seen_with_its_mirror_image() -> None:
    seen: list[Tensor] = []

    def remember(clips: Tensor) -> Tensor:
        seen.append(clips[0, :, 0, 0])
        return clips

    lift_in_windows(remember, torch.arange(3.0).view(3, 1, 1).expand(3, 1, 3), 7, 7)
    assert seen[0].tolist() == [0, 1, 2, 1, 0, 1, 2]
