"""Pictures of a lifter at work: what it saw, what it said, what was true."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from blocks.errors import SuiteError
from blocks.files import atomic_path
from blocks.geometry.skeleton import Skeleton
from lightning_modules.evaluation_pictures import EvaluationPictures
from lightning_modules.gathering import gathered
from lightning_modules.media import log_media
from lightning_modules.pose.pose_clip import MILLIMETRES, PoseClip, displayed
from lightning_modules.pose.pose_files import DEFAULT_FPS, in_unit_of_data
from lightning_modules.skeleton_clip import Array, bounds
from lightning_modules.skeleton_drawing import SkeletonAxes, bone_colours
from lightning_modules.skeleton_film import write_film
from lightning_modules.skeleton_viewer import write_viewer
from lightning_modules.workload import Workload

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SPLITS = {"val": "validation", "test": "test"}
_SLOWER = 4


@dataclass(frozen=True)
class ShownClip:
    """A clip of the evaluated split.

    Args:
        index: Its number in the split.
        source: Name of its video.
        keypoints: What the network saw, x and y, (T, J, 2).
        prediction: (T, J, 3), millimetres.
        truth: The same.
    """

    index: int
    source: str
    keypoints: Array
    prediction: Array
    truth: Array


class PosePictures(EvaluationPictures):
    """Draws `pictures/{val,test}_poses.png` and `poses/{val,test}.html`, which plays the clips.

    At the very end the first of them also becomes a film, `pictures/{val,test}_poses.gif`, as a run
    of half a second can only be followed slowly. The clips are spread over the split, and the same
    on any number of processes.

    Args:
        clips: How many are shown, at least 1.
        every_seconds: Least time between two drawings while training; the last one always comes.
    """

    def __init__(self, clips: int = 5, every_seconds: float = 60.0) -> None:
        super().__init__(every_seconds)
        if clips < 1:
            raise SuiteError(
                expected="at least one clip",
                found=str(clips),
                where="PosePictures, clips",
                cure="correct it",
            )
        self.clips = clips
        self._kept: list[ShownClip] = []
        self._stride = 1
        self._first: PoseClip | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws now and then while training, always in `validate`."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "validate":
            self._film(trainer, "val")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and films the last validation."""
        super().on_fit_end(trainer, pl_module)
        self._film(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and films the test."""
        super().on_test_end(trainer, pl_module)
        self._film(trainer, "test")

    def _forget(self, module: LightningModule) -> None:
        self._kept, self._stride = [], 1

    def _collect(self, module: LightningModule, outputs: Any, batch: dict[str, Any]) -> None:
        """Keeps every `_stride`-th clip."""
        for i, index in enumerate(batch["index"].tolist()):
            if index % self._stride:
                continue
            one = {name: values[i : i + 1] for name, values in batch.items()}
            poses, truth = in_unit_of_data(module, outputs["pose"][i : i + 1].detach(), one)
            assert truth is not None
            parts = [one["keypoints"][..., :2], poses, truth]
            arrays = [part[0].float().cpu().numpy() for part in parts]
            self._kept.append(ShownClip(index, one["source"][0], *arrays))
            self._kept, self._stride = thinned(self._kept, 2 * self.clips, self._stride)

    def _draw(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        kept, _ = thinned(gathered(trainer, self._kept), 2 * self.clips)
        kept.sort(key=lambda clip: clip.index)
        if not trainer.is_global_zero or not kept:
            return
        count = min(self.clips, len(kept))
        chosen = [kept[i * len(kept) // count] for i in range(count)]
        assert isinstance(module, Workload)
        skeleton: Skeleton = getattr(module, "skeleton")  # noqa: B009
        directory = Path(trainer.default_root_dir)
        path = directory / "pictures" / f"{stage}_poses.png"
        with atomic_path(path) as temporary:
            pose_figure(chosen, skeleton).savefig(temporary, dpi=110)
        log_media(trainer, f"{stage}/poses", path)
        relative = bool(getattr(module, "root_relative"))  # noqa: B009
        rest = (skeleton, MILLIMETRES, relative, module.info.get("fps") or DEFAULT_FPS)
        clips = [
            PoseClip(f"{c.source}, clip {c.index}", c.prediction, *rest, c.truth) for c in chosen
        ]
        title = f"Clips of the {_SPLITS[stage]}"
        write_viewer(directory / "poses" / f"{stage}.html", [c.shown() for c in clips], title)
        self._first = clips[0]

    def _film(self, trainer: Trainer, stage: str) -> None:
        if self._first is None:
            return
        clip = replace(self._first, fps=self._first.fps / _SLOWER)
        path = Path(trainer.default_root_dir) / "pictures" / f"{stage}_poses.gif"
        write_film(path, clip.panels(), f"{clip.name}\n{clip.caption}, {_SLOWER} times slower")


def thinned(clips: list[ShownClip], limit: int, stride: int = 1) -> tuple[list[ShownClip], int]:
    """Every `stride`-th clip of a split, for the least doubling of `stride` that keeps the limit.

    Args:
        clips: Those with numbers that `stride` divides.
        limit: Most clips to keep.
        stride: Distance of their numbers.

    Returns:
        Clips, and their stride.
    """
    while len(clips) > limit:
        stride *= 2
        clips = [clip for clip in clips if clip.index % stride == 0]
    return clips, stride


def pose_figure(clips: list[ShownClip], skeleton: Skeleton) -> "Figure":
    """The middle frame of each clip in a column: joints in the image, prediction, truth.

    Args:
        clips: At least one.
        skeleton: Joints and bones.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * len(clips) + 0.3, 7.2))
    for column, clip in enumerate(clips, 1):
        middle = len(clip.prediction) // 2
        prediction, truth = clip.prediction[middle], clip.truth[middle]
        error = np.linalg.norm(prediction - truth, axis=-1).mean()
        flat = figure.add_subplot(3, len(clips), column, aspect="equal")
        _draw_joints(flat, clip.keypoints[middle], skeleton)
        flat.set_title(f"{clip.source}\n{error:.1f} mm off", fontsize=8)
        prediction, truth = displayed(prediction), displayed(truth)
        centre, half = bounds(prediction, truth)
        for row, pose in ((1, prediction), (2, truth)):
            place = row * len(clips) + column
            axes = figure.add_subplot(3, len(clips), place, projection="3d")
            SkeletonAxes(axes, skeleton, centre, half).show(pose)
    for height, name in ((0.79, "2-D joints"), (0.48, "prediction"), (0.17, "truth")):
        figure.text(0.01, height, name, rotation=90, va="center", fontsize=9)
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.01, top=0.92, hspace=0.02, wspace=0.02)
    return figure


def _draw_joints(axes: Any, joints: Array, skeleton: Skeleton) -> None:
    for (parent, child), colour in zip(skeleton.bones, bone_colours(skeleton), strict=True):
        axes.plot(*joints[[parent, child]].T, color=colour, linewidth=2.5, solid_capstyle="round")
    axes.invert_yaxis()
    axes.margins(0.15)
    axes.set(xticks=[], yticks=[])
    axes.set_frame_on(False)
