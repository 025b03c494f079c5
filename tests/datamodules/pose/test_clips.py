"""Clips against a transcription of the walk over frames that MotionBERT describes."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.pose.clips import split_clips, stretched, training_windows, uncovered
from datamodules.pose.database import Video, video_runs


def videos_of(names: list[str]) -> list[Video]:
    return [
        Video(names[start], start, stop, 1000, 1000, group="", camera="")
        for start, stop in video_runs(np.array(names))
    ]


def walk(
    names: list[str], length: int, stride: int, random: np.random.RandomState
) -> list[list[int]]:
    """Frame by frame, as the original's rule is told in the documentation."""
    clips: list[list[int]] = []
    done: set[str] = set()
    start = 0
    for i in range(1, len(names) + 1):
        if i - start == length:
            clips.append(list(range(start, i)))
            done.add(names[i - 1])
            start += stride
        if i < len(names) and names[i] != names[i - 1]:
            if names[i - 1] not in done:
                clips.append((start + stretched(i - start, length, random)).tolist())
                done.add(names[i - 1])
            start = i
    return clips


@pytest.mark.parametrize("seed", range(20))
def test_windows_are_those_of_a_walk_over_frames(seed: int) -> None:
    random = np.random.RandomState(seed)
    names: list[str] = []
    for _ in range(random.randint(1, 9)):
        names += [f"v{random.randint(6)}"] * random.randint(1, 30)
    length, stride = random.randint(1, 12), random.randint(1, 14)
    expected = walk(names, length, stride, np.random.RandomState(0))
    found = split_clips(videos_of(names), length, stride, np.random.RandomState(0))
    assert found.tolist() == expected


def test_stretching_is_upstreams(golden: Path) -> None:
    expected = np.load(golden / "pose" / "losses_metrics.npz")["resample/seed0_5to9"]
    np.testing.assert_array_equal(stretched(5, 9, np.random.RandomState(0)), expected)


def test_the_global_random_state_is_left_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    split_clips(videos_of(["a"] * 4 + ["b"] * 9), 9, 9, np.random.RandomState(0))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_tails_short_last_and_repeated_videos_are_covered_when_asked() -> None:
    names = ["a"] * 25 + ["b"] * 20 + ["a"] * 4 + ["c"] * 5
    videos = videos_of(names)
    plain = split_clips(videos, 9, 9, np.random.RandomState(0))
    assert uncovered(len(names), plain) == 7 + 2 + 4 + 5
    full = split_clips(videos, 9, 9, np.random.RandomState(0), cover_tails=True)
    assert uncovered(len(names), full) == 0


def test_training_windows_reach_the_last_frame() -> None:
    windows = training_windows(videos_of(["a"] * 7 + ["b"] * 3), 4, 2)
    assert windows[:4].tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 4, 5, 6], [6, 6, 6, 6]]
    assert windows[4:].tolist() == [[7, 7, 8, 9], [9, 9, 9, 9]]
