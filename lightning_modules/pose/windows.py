"""Sequences of any length through networks of one: overlapping windows, blended where they meet.

A frame near the end of a window knows little of what is beyond, so its weight falls linearly
towards both ends. Shorter sequences are continued by their mirror image.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from blocks.errors import SuiteError


def window_starts(frames: int, length: int, stride: int) -> list[int]:
    """Where windows begin that cover every frame; the last one ends with the sequence.

    Args:
        frames: Frames of the sequence, at least `length`.
        length: Frames of a window.
        stride: Frames from one to the next, 1 to `length`.
    """
    if not 1 <= stride <= length:
        raise SuiteError(
            expected=f"a stride from 1 to the {length} frames of a window",
            found=str(stride),
            where="stride of the windows",
            cure="half of the window is a good choice; the whole of it does not overlap",
        )
    starts = list(range(0, frames - length + 1, stride))
    return starts if starts[-1] == frames - length else [*starts, frames - length]


def lift_in_windows(
    lift: Callable[[Tensor], Tensor], keypoints: Tensor, length: int, stride: int
) -> Tensor:
    """Lifts one sequence.

    Args:
        lift: From clips (B, length, J, F) to poses (B, length, J, 3).
        keypoints: (N, J, F), N at least 1.
        length: Frames the network was built for.
        stride: Frames from one window to the next.

    Returns:
        Poses, (N, J, 3).
    """
    frames = len(keypoints)
    if frames < length:
        return lift(keypoints[_reflected(frames, length)].unsqueeze(0))[0, :frames]
    starts = window_starts(frames, length, stride)
    clips = lift(torch.stack([keypoints[s : s + length] for s in starts]))
    ramp = torch.arange(1, length + 1, device=clips.device, dtype=clips.dtype)
    weight = torch.minimum(ramp, ramp.flip(0)).view(-1, 1, 1)
    total = clips.new_zeros((frames, *clips.shape[2:]))
    weights = clips.new_zeros((frames, 1, 1))
    for start, clip in zip(starts, clips, strict=True):
        total[start : start + length] += weight * clip
        weights[start : start + length] += weight
    return total / weights


def _reflected(frames: int, length: int) -> Tensor:
    """Indices 0, 1, ..., frames - 1, frames - 2, ..., 0, 1, ... of some length."""
    period = max(2 * (frames - 1), 1)
    place = torch.arange(length) % period
    return torch.where(place < frames, place, period - place)
