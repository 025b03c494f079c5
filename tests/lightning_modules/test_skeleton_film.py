"""Films: as many frames as they should have, as fast as the clip, complete or not there."""

from itertools import islice
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M
from lightning_modules import skeleton_film
from lightning_modules.pose.pose_clip import displayed
from lightning_modules.skeleton_clip import SkeletonClip, bounds
from lightning_modules.skeleton_drawing import LEFT, MIDDLE, RIGHT, bone_colours
from lightning_modules.skeleton_film import film_frames, write_film
from tests.lightning_modules.pose import clips
from tests.lightning_modules.pose.clips import walking

TITLE = "S9 <Walking>\nmm"


def clip(frames: int = 6, truth: bool = True, fps: float = 50.0) -> list[SkeletonClip]:
    return clips.clip(frames, truth, fps).panels()


def test_a_gif_moves_as_fast_as_the_clip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "walk.gif"
    write_film(path, clip(7, fps=50), TITLE)
    with Image.open(path) as film:
        assert film.n_frames == 4  # Every second of 7.
        assert film.info["duration"] == 40
        assert film.info["loop"] == 0
        assert film.size == (800, 448)  # Prediction and truth.
        pictures = []
        for number in range(film.n_frames):
            film.seek(number)
            pictures.append(np.asarray(film.convert("RGB"), dtype=int))
    assert all((a != b).any() for a, b in zip(pictures, pictures[1:], strict=False))
    expected = list(film_frames(clip(7, fps=50), TITLE, 2))
    for found, drawn in zip(pictures, expected, strict=True):
        assert np.abs(found - drawn).mean() < 1.5
    assert [p.name for p in path.parent.iterdir()] == ["walk.gif"]


def test_an_mp4_is_one_skeleton_wide_without_truth(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    write_film(path, clip(5, truth=False, fps=20), TITLE)
    film = imageio_ffmpeg.read_frames(str(path))
    facts = next(film)
    assert facts["size"] == (400, 448)
    assert facts["fps"] == pytest.approx(20)
    assert facts["codec"] == "h264"
    assert len(list(film)) == 5


def test_one_frame_and_a_body_of_no_size_can_be_drawn(tmp_path: Path) -> None:
    still = clip(1, truth=False)
    still[0].joints[:] = 0
    write_film(tmp_path / "still.gif", still, TITLE)
    with Image.open(tmp_path / "still.gif") as film:
        film.load()


def test_other_films_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"\.gif or \.mp4"):
        write_film(tmp_path / "walk.avi", clip(), TITLE)


def test_a_film_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> object:
        yield from islice(film_frames(clip(2), TITLE), 2)
        raise OSError("disk full")

    monkeypatch.setattr(skeleton_film, "film_frames", failing)
    with pytest.raises(OSError, match="disk full"):
        write_film(tmp_path / "walk.gif", clip(), TITLE)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_drawn_one_at_a_time() -> None:
    long = clip(1_000_000 // 51, truth=False)
    first, second = islice(film_frames(long, TITLE), 2)
    assert first.dtype == np.uint8
    assert (first != second).any()


def test_bones_have_the_colour_of_their_side() -> None:
    colours = dict(zip(H36M.bones, bone_colours(H36M), strict=True))
    names = H36M.names
    for (_, child), colour in colours.items():
        side = names[child].split()[0]
        assert colour == {"left": LEFT, "right": RIGHT}.get(side, MIDDLE)


def test_the_cube_holds_every_pose_and_is_no_larger_than_needed() -> None:
    a, b = walking(9), 2 * walking(4, seed=2)
    a, b = displayed(a), displayed(b)
    centre, half = bounds(a, None, b)
    points = np.concatenate([x.reshape(-1, 3) for x in (a, b)])
    reach = np.abs(points - centre).max()
    assert reach <= half <= 1.06 * reach
