"""Pictures of generated motion beside the truth while a module learns, and pages that play them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from blocks.errors import SuiteError
from blocks.files import atomic_path
from blocks.geometry.motion_features import recover_joints
from lightning_modules.evaluation_pictures import EvaluationPictures
from lightning_modules.gathering import gathered
from lightning_modules.media import log_media
from lightning_modules.motion.generation_round import generate_for, rows_of
from lightning_modules.motion.motion_files import GeneratedMotion, shown_clips
from lightning_modules.skeleton_clip import SkeletonClip
from lightning_modules.skeleton_drawing import bone_colours
from lightning_modules.skeleton_viewer import write_viewer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Poses of a strip, and how faint those at the beginning are.
_POSES, _FAINTEST = 7, 0.25


class MotionPictures(EvaluationPictures):
    """Draws `pictures/{val,test}_motions.png` and writes `motions/{val,test}.html`, which plays.

    The same captions get the same noise in each evaluation. They are the first of the split, and
    the same on any number of processes.

    Args:
        motions: How many are shown, at least 1.
        every_seconds: Least time between two drawings while training; the last one always comes.
        seed: Of the noise.
    """

    def __init__(self, motions: int = 4, every_seconds: float = 60.0, seed: int = 0) -> None:
        super().__init__(every_seconds)
        if motions < 1:
            raise SuiteError(
                expected="at least one motion",
                found=str(motions),
                where="MotionPictures, motions",
                cure="correct it",
            )
        self.motions, self.seed = motions, seed
        self._kept: list[GeneratedMotion] = []

    def _forget(self, module: LightningModule) -> None:
        self._kept = []

    def _collect(self, module: LightningModule, outputs: Any, batch: dict[str, Any]) -> None:
        rows = [row for row, i in enumerate(batch["index"].tolist()) if i < self.motions]
        if not rows:
            return
        task: Any = module
        part = rows_of(batch, rows)
        indices, lengths = part["index"].tolist(), part["length"].tolist()
        motion = task.denormalised(generate_for(task, part, indices, self.seed)).float().cpu()
        truth = task.denormalised(part["motion"]).float().cpu()
        for i, index in enumerate(indices):
            clip = (x[i, : lengths[i]] for x in (motion, truth))
            name, caption = part["name"][i], part["caption"][i]
            self._kept.append(GeneratedMotion(index, name, caption, *clip))

    def _draw(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        kept = sorted(gathered(trainer, self._kept), key=lambda motion: motion.index)
        if not trainer.is_global_zero or not kept:
            return
        scenes = [shown_clips(m, recover_joints(m.features, m.skeleton))[0] for m in kept]
        directory = Path(trainer.default_root_dir)
        path = directory / "pictures" / f"{stage}_motions.png"
        with atomic_path(path) as temporary:
            motion_figure(scenes).savefig(temporary, dpi=110)
        log_media(trainer, f"{stage}/motions", path)
        page = directory / "motions" / f"{stage}.html"
        write_viewer(page, [clip for scene in scenes for clip in scene], f"Motions of {stage}")
        log_media(trainer, f"{stage}/motions_in_motion", page)


def motion_figure(scenes: list[list[SkeletonClip]]) -> "Figure":
    """A row for each scene: its clips as strips of poses, faint at first, under the caption.

    Args:
        scenes: Clips that belong together, such as a generated motion and the truth.
    """
    from matplotlib.figure import Figure

    columns = max(len(scene) for scene in scenes)
    figure = Figure(figsize=(5.2 * columns, 1.85 * len(scenes)))
    for row, scene in enumerate(scenes):
        for column, clip in enumerate(scene):
            axes = figure.add_subplot(len(scenes), columns, row * columns + column + 1)
            _draw_strip(axes, clip)
            title = f"{clip.name}: {clip.caption}\n{_travelled(clip):.1f} {clip.unit} of path"
            axes.set_title(title, fontsize=8, wrap=True)
    figure.tight_layout()
    return figure


def _draw_strip(axes: Any, clip: SkeletonClip) -> None:
    """Poses at even times, spread to the right in their order; distances go by the path."""
    frames = np.linspace(0, len(clip.joints) - 1, _POSES).round().astype(int)
    root = clip.joints[:, clip.skeleton.root, :2]
    height = float(np.ptp(clip.joints[..., 2])) or 1.0
    for place, frame in enumerate(frames):
        pose = clip.joints[frame]
        # Seen half from the side: bodies mostly look towards the viewer or along their path.
        across = (pose[:, 0] - root[frame, 0]) * 0.77 - (pose[:, 1] - root[frame, 1]) * 0.64
        across = across + place * 0.62 * height
        alpha = _FAINTEST + (1 - _FAINTEST) * place / (_POSES - 1)
        for (parent, child), colour in zip(
            clip.skeleton.bones, bone_colours(clip.skeleton), strict=True
        ):
            ends = [parent, child]
            axes.plot(across[ends], pose[ends, 2], color=colour, linewidth=1.8, alpha=alpha)
        axes.text(
            place * 0.62 * height, -0.16 * height, f"{frame / clip.fps:.1f} s", ha="center",
            fontsize=6, color="#667",
        )  # fmt: skip
    axes.axhline(clip.floor or 0.0, color="#c8ccd2", linewidth=1, zorder=0)
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.set_frame_on(False)


def _travelled(clip: SkeletonClip) -> float:
    root = clip.joints[:, clip.skeleton.root, :2]
    return float(np.linalg.norm(np.diff(root, axis=0), axis=1).sum())
