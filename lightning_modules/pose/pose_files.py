"""Files of `predict`: the poses of each video, a page that plays them, and a film of some.

A video comes as overlapping windows in any order; where they meet they are blended
(`windows.blended`). Units and axes are in `metadata`, JSON in the file of poses.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from blocks.errors import SuiteError
from blocks.files import atomic_path
from lightning_modules.file_names import file_names
from lightning_modules.gathering import gathered
from lightning_modules.pose.pose_clip import IMAGE_UNIT, MILLIMETRES, PoseClip, body_height
from lightning_modules.pose.windows import blended
from lightning_modules.skeleton_clip import Array
from lightning_modules.skeleton_film import write_film
from lightning_modules.skeleton_viewer import write_viewer
from lightning_modules.workload import Workload

# Of videos whose data does not tell.
DEFAULT_FPS = 25.0
# More skeletons side by side cannot be told apart.
_MOST_TOGETHER = 8
_TOGETHER = "all_together"


@dataclass(frozen=True)
class _Window:
    """A window as it was predicted.

    Args:
        index: Its number over all videos.
        source: Name of its video.
        frame: Numbers of its frames, (T,).
        valid: Which of them count, (T,).
        values: Pose, confidence and, where known, truth side by side, (T, J, 4 or 7).
    """

    index: int
    source: str
    frame: Tensor
    valid: Tensor
    values: Tensor


class PoseFiles(Callback):
    """Writes `poses/<video>.npz`, `.html` and, for the first ones, a film into the run directory.

    A file of poses holds `poses` (N, 17, 3), their numbers `frames` (N,), `confidence` (N, 17) of
    the 2-D joints, `truth` (N, 17, 3) where the data has it, and `metadata`: JSON with unit, axes
    (x right, y down, z away from the camera), origin, joints and frames per second. Unless the
    module was trained otherwise, the root is at the origin of every frame.

    Of a few videos, such as several people in one, `poses/all_together.html` plays all.

    Args:
        body_height_mm: Height of the person from ankles to crown, about 0.95 of the stature. Each
            video is scaled to it, and poses come in millimetres; null leaves them in halves of the
            image's width. Data with truth has its own scale and needs none.
        fps: Frames per second of the videos; null takes the data's, or 25 where it does not tell.
        video: Kind of film.
        videos: How many videos, from the first, are drawn as films.
        video_seconds: Length of a film; it shows the beginning of a longer video.
    """

    def __init__(
        self,
        body_height_mm: float | None = None,
        fps: float | None = None,
        video: Literal["none", "gif", "mp4"] = "gif",
        videos: int = 4,
        video_seconds: float = 10.0,
    ) -> None:
        super().__init__()
        given = {"body_height_mm": body_height_mm, "fps": fps, "video_seconds": video_seconds}
        for name, value in given.items():
            if value is not None and not value > 0:
                raise SuiteError(
                    expected="a number above 0",
                    found=str(value),
                    where=f"PoseFiles, {name}",
                    cure="correct it" if name == "video_seconds" else "correct it, or leave it out",
                )
        self.body_height_mm, self.fps = body_height_mm, fps
        self.video: Literal["none", "gif", "mp4"] = video
        self.videos, self.video_seconds = videos, video_seconds
        self._windows: list[_Window] = []
        self._unit = IMAGE_UNIT

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier run."""
        self._windows, self._unit = [], IMAGE_UNIT

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keeps the windows of a batch."""
        poses, truth = in_unit_of_data(pl_module, outputs["pose"], batch)
        self._unit = IMAGE_UNIT if truth is None else MILLIMETRES
        # Confidence is the third feature, if there are velocities too.
        parts = [poses, batch["keypoints"][..., 2:3], *([] if truth is None else [truth])]
        values = torch.cat([part.float() for part in parts], -1).cpu()
        frame = batch["frame"].cpu()
        valid = batch["valid"].cpu() if "valid" in batch else frame >= 0
        indices = batch["index"].tolist()
        for i, source in enumerate(batch["source"]):
            self._windows.append(_Window(indices[i], source, frame[i], valid[i], values[i]))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the files."""
        windows = gathered(trainer, self._windows)
        self._windows = []
        if not trainer.is_global_zero:
            return
        by_source: dict[str, list[_Window]] = {}
        for window in sorted(windows, key=lambda window: window.index):
            by_source.setdefault(window.source, []).append(window)
        folder = Path(trainer.default_root_dir) / "poses"
        free = file_names(by_source, taken=[_TOGETHER], empty="video")
        names = dict(zip(by_source, free, strict=True))
        clips = []
        for number, (source, parts) in enumerate(by_source.items()):
            clip = self._write(folder / names[source], source, parts, pl_module)
            if number < self.videos and self.video != "none":
                frames = max(round(self.video_seconds * clip.fps), 1)
                truth = None if clip.truth is None else clip.truth[:frames]
                beginning = replace(clip, poses=clip.poses[:frames], truth=truth)
                film = folder / f"{names[source]}.{self.video}"
                write_film(film, beginning.panels(), f"{clip.name}\n{clip.caption}")
            if len(by_source) <= _MOST_TOGETHER:
                clips.append(clip)
        if len(clips) > 1:
            page = [clip.shown() for clip in clips]
            write_viewer(folder / f"{_TOGETHER}.html", page, "all together")

    def _write(
        self, path: Path, source: str, windows: list[_Window], module: LightningModule
    ) -> PoseClip:
        values, frames = blended(
            torch.stack([window.values for window in windows]),
            torch.stack([window.frame for window in windows]),
            torch.stack([window.valid for window in windows]),
        )
        poses, confidence, truth = np.split(values.numpy(), (3, 4), -1)
        clip = self._clip(source, poses, truth if truth.size else None, module)
        arrays = {
            "poses": clip.poses, "frames": frames.numpy(), "confidence": confidence[..., 0],
            "metadata": np.array(json.dumps(_metadata(clip))),
        } | ({} if clip.truth is None else {"truth": clip.truth})  # fmt: skip
        with atomic_path(Path(f"{path}.npz")) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        write_viewer(Path(f"{path}.html"), [clip.shown()], source)
        return clip

    def _clip(
        self, source: str, poses: Array, truth: Array | None, module: LightningModule
    ) -> PoseClip:
        assert isinstance(module, Workload)
        skeleton, unit = getattr(module, "skeleton"), self._unit  # noqa: B009
        if unit == IMAGE_UNIT and self.body_height_mm is not None:
            poses = poses * np.float32(self.body_height_mm / body_height(poses, skeleton))
            unit = MILLIMETRES
        fps = self.fps or module.info.get("fps") or DEFAULT_FPS
        relative = bool(getattr(module, "root_relative"))  # noqa: B009
        return PoseClip(source, poses, skeleton, unit, relative, fps, truth)


def in_unit_of_data(
    module: LightningModule, pose: Tensor, batch: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """Poses and truth as they are compared.

    Args:
        module: A `PoseLifting`.
        pose: Its output, (B, T, J, 3).
        batch: What it was made from.

    Returns:
        In millimetres with the truth if the batch has one; else normalised as they are, and None.
    """
    pose = module.rooted(pose)  # type: ignore[operator]
    if "target" not in batch:
        return pose, None
    pose, truth = module.millimetres(pose, batch), batch["target"]  # type: ignore[operator]
    if getattr(module, "root_relative"):  # noqa: B009
        root = getattr(module, "skeleton").root  # noqa: B009
        pose, truth = (x - x[..., root : root + 1, :] for x in (pose, truth))
    return pose, truth


def _metadata(clip: PoseClip) -> dict[str, Any]:
    return {
        "source": clip.name,
        "unit": clip.unit,
        "axes": "camera: x right, y down, z away",
        "origin": clip.space,
        "joints": clip.skeleton.names,
        "fps": clip.fps,
    }
