"""Poses as a film: GIF, or MP4 with H.264, which ffmpeg encodes while the frames are drawn.

No more than one frame is in memory, however long the clip is.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.files import atomic_path
from lightning_modules.pose.drawing import SkeletonAxes, bounds
from lightning_modules.pose.pose_clip import PoseClip

Image = npt.NDArray[np.uint8]

# Browsers slow down a GIF whose frames last less than 20 ms; 25 a second look smooth.
_FASTEST = 25.0
_INCHES, _DPI = 4.0, 100
_TITLE = 0.48
# The palette of the first frame serves all: they share their colours, and ffmpeg need not wait.
_PALETTE = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=dither=none"
_ENCODER: dict[str, dict[str, Any]] = {
    ".gif": {"codec": "gif", "pix_fmt_out": "pal8", "output_params": ["-filter_complex", _PALETTE]},
    ".mp4": {"codec": "libx264", "pix_fmt_out": "yuv420p", "quality": 7},
}


def write_animation(path: Path, clip: PoseClip) -> None:
    """Draws a clip into a film, with the truth beside it where there is one.

    Above 25 frames per second some frames are left out; it is as fast as the clip.

    Args:
        path: A name that ends with .gif or .mp4; appears when the film is complete.
        clip: What to show.

    Raises:
        SuiteError: Another kind of film.
    """
    if path.suffix not in _ENCODER:
        raise SuiteError(
            expected="a name that ends with .gif or .mp4",
            found=path.name,
            where="write_animation",
            cure="rename it",
        )
    import imageio_ffmpeg  # type: ignore[import-untyped]

    step = max(math.ceil(clip.fps / _FASTEST), 1)
    frames = animation_frames(clip, step)
    first = next(frames)
    height, width, _ = first.shape
    with atomic_path(path) as temporary:
        film = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            fps=clip.fps / step,
            macro_block_size=1,
            ffmpeg_log_level="error",  # The palette would be commented on otherwise.
            **_ENCODER[path.suffix],
        )
        film.send(None)
        try:
            film.send(first)
            for frame in frames:
                film.send(frame)
        finally:
            film.close()


def animation_frames(clip: PoseClip, step: int = 1) -> Iterator[Image]:
    """Every `step`-th frame of a clip as an image.

    Args:
        clip: What to show.
        step: Frames from one image to the next.

    Yields:
        Images, (H, W, 3), of even height and width.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {"prediction": clip.poses} | ({} if clip.truth is None else {"truth": clip.truth})
    figure = Figure(figsize=(_INCHES * len(shown), _INCHES + _TITLE), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    centre, half = bounds(clip.poses, clip.truth)
    skeletons = []
    for place, name in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), place, projection="3d")
        axes.set_title(name, fontsize=10, y=0.97)
        skeletons.append(SkeletonAxes(axes, clip.skeleton, centre, half))
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.9)
    figure.suptitle(f"{clip.name}\n{clip.caption}", fontsize=10, y=0.98)
    number = figure.text(0.02, 0.02, "", fontsize=9)
    for frame in range(0, len(clip.poses), step):
        for skeleton, poses in zip(skeletons, shown.values(), strict=True):
            skeleton.show(poses[frame])
        number.set_text(f"frame {frame}, {frame / clip.fps:.2f} s")
        canvas.draw()
        image = np.asarray(canvas.buffer_rgba())[..., :3]
        yield np.ascontiguousarray(image)
