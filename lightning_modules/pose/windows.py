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
    frames_of_clips = torch.tensor(starts).unsqueeze(1) + torch.arange(length)
    return blended(clips, frames_of_clips.to(clips.device))[0]


def blended(clips: Tensor, frame: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One sequence of clips that overlap: for each frame the weighted mean of what they say.

    Args:
        clips: (B, T, ...).
        frame: Number of each frame in the sequence, (B, T).
        valid: Which frames count, (B, T); all if left out.

    Returns:
        What each frame is, (N, ...), and the numbers of the frames in order, (N,).
    """
    ramp = torch.arange(1, clips.shape[1] + 1, device=clips.device, dtype=clips.dtype)
    weight = torch.minimum(ramp, ramp.flip(0)).expand(frame.shape)
    clips, weight, frame = clips.flatten(0, 1), weight.flatten(), frame.flatten()
    if valid is not None:
        keep = valid.flatten()
        clips, weight, frame = clips[keep], weight[keep], frame[keep]
    frames, place = torch.unique(frame, return_inverse=True)
    weight = weight.view(-1, *[1] * (clips.ndim - 1))
    total = clips.new_zeros((len(frames), *clips.shape[1:])).index_add_(0, place, weight * clips)
    weights = weight.new_zeros((len(frames), *weight.shape[1:])).index_add_(0, place, weight)
    return total / weights, frames


def _reflected(frames: int, length: int) -> Tensor:
    """Indices 0, 1, ..., frames - 1, frames - 2, ..., 0, 1, ... of some length."""
    period = max(2 * (frames - 1), 1)
    place = torch.arange(length) % period
    return torch.where(place < frames, place, period - place)
