"""Which frames make a clip: the rules of MotionBERT (Human3.6M) and of P-STMO (MPI-INF-3DHP).

A clip is T frame numbers of a split; all functions return (clips, T) arrays.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.pose.database import PoseSplit, Video

Indices = npt.NDArray[np.int64]


def split_clips(
    videos: Sequence[Video],
    num_frames: int,
    stride: int,
    random: np.random.RandomState,
    cover_tails: bool = False,
) -> Indices:
    """Windows of each video; a video shorter than one is stretched (MotionBERT's split_clips).

    What is left at the end of a video after the last whole window is in no clip. Neither is a short
    video at the end of the list, nor one whose name has come before.

    Args:
        videos: In the order of their frames.
        num_frames: Frames in a clip, T.
        stride: Frames from one window to the next.
        random: Decides which frames of a short video are repeated. Upstream uses numpy's global
            state with seed 0, the training split first.
        cover_tails: Add a window at the end of each video, and stretch short ones evenly, so that
            every frame is in one.
    """
    clips: list[Indices] = []
    seen: set[str] = set()
    for number, video in enumerate(videos):
        starts = list(range(video.start, video.stop - num_frames + 1, stride))
        if starts:
            last = video.stop - num_frames
            if cover_tails and starts[-1] != last:
                starts.append(last)
            clips.append(np.add.outer(np.array(starts), np.arange(num_frames)))
        elif cover_tails:
            clips.append((video.start + _evenly(len(video), num_frames))[None])
        elif video.name not in seen and number < len(videos) - 1:
            clips.append((video.start + stretched(len(video), num_frames, random))[None])
        else:
            continue
        seen.add(video.name)
    return _joined(clips, num_frames)


def stretched(length: int, num_frames: int, random: np.random.RandomState) -> Indices:
    """T places in a shorter video, in order; of two neighbours chance takes one."""
    even = np.linspace(0, length, num_frames, endpoint=False)
    down = random.randint(2, size=even.shape)
    places = np.sort(down * np.floor(even) + (1 - down) * np.ceil(even))
    return places.clip(0, length - 1).astype(np.int64)


def training_windows(videos: Sequence[Video], num_frames: int, stride: int) -> Indices:
    """A window from every `stride`-th frame; what is too short at the end is stretched (3DHP).

    Args:
        videos: In the order of their frames.
        num_frames: Frames in a clip, T.
        stride: Frames from one window to the next.
    """
    clips = []
    for video in videos:
        for start in range(video.start, video.stop, stride):
            length = min(num_frames, video.stop - start)
            clips.append(start + _evenly(length, num_frames)[None])
    return _joined(clips, num_frames)


def centred_windows(split: PoseSplit, num_frames: int) -> Indices:
    """A window around every valid frame; beyond a video's ends its first or last frame repeats.

    Args:
        split: With `valid`, or every frame counts.
        num_frames: Frames in a clip, T; odd, or nothing is in the middle.
    """
    if num_frames % 2 == 0:
        raise SuiteError(
            expected="an odd number of frames, of which one is in the middle",
            found=str(num_frames),
            where="data.init_args.num_frames",
            cure="take 27 or 81; MPI-INF-3DHP is evaluated on the middle frame of each window",
        )
    around = np.arange(num_frames) - num_frames // 2
    clips = []
    for video in split.videos:
        frames = np.arange(video.start, video.stop)
        if split.valid is not None:
            frames = frames[split.valid[video.start : video.stop] > 0]
        clips.append(np.add.outer(frames, around).clip(video.start, video.stop - 1))
    return _joined(clips, num_frames)


def uncovered(frames: int, clips: Indices) -> int:
    """How many frames of a split are in no clip."""
    return int(frames - len(np.unique(clips)))


def _evenly(length: int, num_frames: int) -> Indices:
    """T places in a shorter video, in order; none is left out."""
    return np.floor(np.linspace(0, length, num_frames, endpoint=False)).astype(np.int64)


def _joined(clips: Sequence[Indices], num_frames: int) -> Indices:
    return np.concatenate(clips) if clips else np.empty((0, num_frames), dtype=np.int64)
