"""Moving bodies as a film: GIF, or MP4 with H.264, which ffmpeg encodes while frames are drawn.

No more than one frame is in memory, however long the clip is.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.files import atomic_path
from lightning_modules.skeleton_clip import SkeletonClip, bounds
from lightning_modules.skeleton_drawing import SkeletonAxes

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


def write_film(path: Path, clips: Sequence[SkeletonClip], title: str) -> None:
    """Draws clips side by side into a film, each under its name.

    Above 25 frames per second some frames are left out; it is as fast as the clips.

    Args:
        path: A name that ends with .gif or .mp4; appears when the film is complete.
        clips: At least one, all of one speed; the longest decides, others rest at their end.
        title: Above them; may have two lines.

    Raises:
        SuiteError: Another kind of film.
    """
    if path.suffix not in _ENCODER:
        raise SuiteError(
            expected="a name that ends with .gif or .mp4",
            found=path.name,
            where="write_film",
            cure="rename it",
        )
    import imageio_ffmpeg  # type: ignore[import-untyped]

    step = max(math.ceil(clips[0].fps / _FASTEST), 1)
    frames = film_frames(clips, title, step)
    first = next(frames)
    height, width, _ = first.shape
    with atomic_path(path) as temporary:
        film = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            fps=clips[0].fps / step,
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


def film_frames(clips: Sequence[SkeletonClip], title: str, step: int = 1) -> Iterator[Image]:
    """Every `step`-th frame of some clips as an image.

    Args:
        clips: Side by side.
        title: Above them.
        step: Frames from one image to the next.

    Yields:
        Images, (H, W, 3), of even height and width.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES * len(clips), _INCHES + _TITLE), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    follows = any(clip.travels for clip in clips)
    centre, half = bounds(*(_about_root(c) if follows else c.joints for c in clips))
    skeletons = []
    for place, clip in enumerate(clips, 1):
        axes = figure.add_subplot(1, len(clips), place, projection="3d")
        axes.set_title(clip.name, fontsize=10, y=0.97)
        skeletons.append(SkeletonAxes(axes, clip.skeleton, centre, half, clip.floor))
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.9)
    figure.suptitle(title, fontsize=10, y=0.98)
    number = figure.text(0.02, 0.02, "", fontsize=9)
    for frame in range(0, max(len(clip.joints) for clip in clips), step):
        for axes, clip in zip(skeletons, clips, strict=True):
            now = min(frame, len(clip.joints) - 1)
            axes.show(clip.joints[now])
            path = clip.joints[: now + 1, clip.skeleton.root]
            if follows:
                axes.look_at(path[-1])
            if clip.floor is not None:
                axes.show_path(path)
        number.set_text(f"frame {frame}, {frame / clips[0].fps:.2f} s")
        canvas.draw()
        image = np.asarray(canvas.buffer_rgba())[..., :3]
        yield np.ascontiguousarray(image)


def _about_root(clip: SkeletonClip) -> npt.NDArray[np.float32]:
    """Joints with the root at the origin of the ground, (N, J, 3)."""
    root = clip.joints[:, clip.skeleton.root : clip.skeleton.root + 1]
    return clip.joints - root * np.array([1, 1, 0], dtype=np.float32)
