"""Files of `predict`: joints, features, BVH, a page that plays them, a film, and measurements."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from blocks.files import atomic_path, write_json
from blocks.geometry.motion_features import recover_joints
from blocks.geometry.motion_skeleton import MotionSkeleton, skeleton_of
from lightning_modules.file_names import file_names
from lightning_modules.gathering import gathered
from lightning_modules.motion.bvh import write_bvh
from lightning_modules.motion.motion_clip import motion_clip
from lightning_modules.motion.physics import UNITS, PhysicalReport, physical_report
from lightning_modules.skeleton_clip import SkeletonClip
from lightning_modules.skeleton_film import write_film
from lightning_modules.skeleton_viewer import write_viewer

# A page of more clips is slow to open; each has a page of its own anyway.
_MOST_TOGETHER = 40
_ALL = "all"


@dataclass(frozen=True)
class GeneratedMotion:
    """A motion that was generated.

    Args:
        index: Its number in the data.
        name: Of the clip or prompt.
        caption: The text.
        features: (T, D) in the data's units.
        truth: Of the clip that the caption describes, (T, D), or None.
    """

    index: int
    name: str
    caption: str
    features: Tensor
    truth: Tensor | None

    @property
    def skeleton(self) -> MotionSkeleton:
        """Whose features they are."""
        return skeleton_of(self.features.shape[1])


class MotionFiles(Callback):
    """Writes a folder `motions/` into the run directory.

    For each motion `<name>_joints.npy` (T, J, 3) float32 in the data's unit with y up,
    `<name>_features.npy` (T, D), `<name>.bvh` and `<name>.html`, a page that plays it beside the
    truth where the data has it; films of the first ones; for all of them `all.html`,
    `captions.json` and `physics.csv`.

    The rotations in BVH are swings that lead from a rest pose to the joints' places; twist is
    undefined, and they are no rotations of SMPL.

    Args:
        bvh: Whether BVH files are written.
        video: Kind of film.
        videos: How many motions, from the first, are drawn as films.
    """

    def __init__(
        self, bvh: bool = True, video: Literal["none", "gif", "mp4"] = "gif", videos: int = 4
    ) -> None:
        super().__init__()
        self.bvh, self.videos = bvh, videos
        self.video: Literal["none", "gif", "mp4"] = video
        self._motions: list[GeneratedMotion] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier run."""
        self._motions = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the motions of a batch."""
        module: Any = pl_module
        truth = module.denormalised(batch["motion"]) if "motion" in batch else None
        features, lengths = outputs["features"].float().cpu(), outputs["length"].tolist()
        for i, index in enumerate(batch["index"].tolist()):
            frames = lengths[i]
            real = None if truth is None else truth[i, : batch["length"][i]].float().cpu()
            name = batch["name"][i] if "name" in batch else f"motion_{index:04d}"
            own = features[i, :frames]
            self._motions.append(GeneratedMotion(index, name, batch["caption"][i], own, real))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the files."""
        motions = sorted(gathered(trainer, self._motions), key=lambda motion: motion.index)
        self._motions = []
        if trainer.is_global_zero and motions:
            self._write(Path(trainer.default_root_dir) / "motions", motions)

    def _write(self, folder: Path, motions: list[GeneratedMotion]) -> None:
        names = file_names([m.name for m in motions], taken=[_ALL], empty="motion")
        pages: list[SkeletonClip] = []
        reports: list[tuple[str, str, PhysicalReport]] = []
        for number, (motion, name) in enumerate(zip(motions, names, strict=True)):
            joints = recover_joints(motion.features, motion.skeleton)
            save_array(folder / f"{name}_features.npy", motion.features)
            save_array(folder / f"{name}_joints.npy", joints)
            if self.bvh:
                write_bvh(folder / f"{name}.bvh", joints, motion.skeleton)
            clips, found = shown_clips(motion, joints)
            reports += [(name, kind, report) for kind, report in found.items()]
            write_viewer(folder / f"{name}.html", clips, motion.caption)
            if number < self.videos and self.video != "none":
                write_film(folder / f"{name}.{self.video}", clips, motion.caption)
            pages += clips if number < _MOST_TOGETHER else []
        if len(motions) > 1:
            write_viewer(folder / f"{_ALL}.html", pages, "Generated motions")
        captions = {n: m.caption for n, m in zip(names, motions, strict=True)}
        write_json(folder / "captions.json", captions)
        write_physics(folder / "physics.csv", reports)


def shown_clips(
    motion: GeneratedMotion, joints: Tensor
) -> tuple[list[SkeletonClip], dict[str, PhysicalReport]]:
    """A motion, and the truth beside it, as viewers take them; and their measurements by kind."""
    places = {"generated": joints}
    if motion.truth is not None:
        places["ground truth"] = recover_joints(motion.truth, motion.skeleton)
    reports = {kind: physical_report(found, motion.skeleton) for kind, found in places.items()}
    scene = f"{motion.name}: {motion.caption}"
    clips = [
        motion_clip(kind, found, motion.skeleton, motion.caption, reports[kind], scene)
        for kind, found in places.items()
    ]
    return clips, reports


def write_physics(path: Path, reports: list[tuple[str, str, PhysicalReport]]) -> None:
    """Writes measurements as CSV: means first, then a row for each motion.

    Args:
        path: The file.
        reports: Name of the motion, generated or ground truth, measurements.
    """
    kinds = list(dict.fromkeys(kind for _, kind, _ in reports))
    means = [
        ("mean", kind, PhysicalReport.mean([report for _, k, report in reports if k == kind]))
        for kind in kinds
    ]
    header = [f"{name} ({unit})" for name, unit in UNITS.items()]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "motion", *header])
        for name, kind, report in (*means, *reports):
            values = asdict(report).values()
            writer.writerow([name, kind, *("" if v != v else f"{v:.5g}" for v in values)])


def save_array(path: Path, values: Tensor) -> None:
    """Writes an .npy file in one step."""
    with atomic_path(path) as temporary:
        np.save(temporary, values.numpy())
