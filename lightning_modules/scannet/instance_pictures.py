"""Pictures of a segmenter at work: overlays, a page of clouds to turn, and PLY files."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from blocks.errors import SuiteError
from blocks.files import atomic_path
from lightning_modules.evaluation_pictures import EvaluationPictures
from lightning_modules.file_names import file_names
from lightning_modules.gathering import gathered
from lightning_modules.media import log_media, log_points
from lightning_modules.scannet.cloud_files import write_clouds
from lightning_modules.scannet.cloud_viewer import write_cloud_page
from lightning_modules.scannet.instances import Instances
from lightning_modules.scannet.shown_cloud import (
    Array,
    Labelling,
    ShownCloud,
    found_labelling,
    true_labelling,
)
from lightning_modules.scannet.targets import thing_instances
from lightning_modules.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# CLIP's normalisation, to turn images back into colours (openai/CLIP).
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Found instances are shown from this share of the best one's score on.
_CLEAR = 0.2
# An instance is named in the overlay from this share of the points on.
_NAMED = 0.01


@dataclass(frozen=True)
class _Kept:
    """A sample to show, by its place in the split."""

    index: int
    cloud: ShownCloud


class InstancePictures(EvaluationPictures):
    """Draws `pictures/{val,test}_instances.png`, `clouds/{val,test}.html` and PLY files beside it.

    Samples are spread over the split, and the same in every epoch and on any number of processes.

    Args:
        samples: How many are shown, at least 1.
        every_seconds: Least time between two drawings while training; the last one always comes.
    """

    def __init__(self, samples: int = 4, every_seconds: float = 60.0) -> None:
        super().__init__(every_seconds)
        if samples < 1:
            raise SuiteError(
                expected="at least one sample",
                found=str(samples),
                where="InstancePictures, samples",
                cure="correct it",
            )
        self.samples = samples
        self._kept: list[_Kept] = []

    def _forget(self, module: LightningModule) -> None:
        self._kept = []

    def _collect(self, module: LightningModule, outputs: Any, batch: dict[str, Any]) -> None:
        assert isinstance(module, Workload)
        count = int(module.info.get("num_eval") or 0)
        chosen = {i * count // self.samples for i in range(self.samples)}
        for place, index in enumerate(batch["index"].tolist()):
            if index in chosen and "rgb" in batch:
                cloud = shown_cloud(module, outputs, batch, place)
                self._kept.append(_Kept(index, cloud))

    def _draw(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        kept = sorted(gathered(trainer, self._kept), key=lambda sample: sample.index)
        if not trainer.is_global_zero or not kept:
            return
        clouds = [sample.cloud for sample in kept]
        directory = Path(trainer.default_root_dir)
        path = directory / "pictures" / f"{stage}_instances.png"
        with atomic_path(path) as temporary:
            overlay_figure(clouds).savefig(temporary, dpi=110)
        log_media(trainer, f"{stage}/instances", path)
        write_cloud_page(directory / "clouds" / f"{stage}.html", clouds, f"Instances, {stage}")
        names = file_names(f"{stage}_{cloud.name}" for cloud in clouds)
        for cloud, name in zip(clouds, names, strict=True):
            write_clouds(directory / "clouds", name, cloud)
            for mode, rgb in cloud.modes().items():
                points = np.concatenate((cloud.xyz, rgb), 1)
                log_points(trainer, f"{stage}/{cloud.name}/{mode}", points)


def shown_cloud(
    module: Workload, outputs: dict[str, Any], batch: dict[str, Any], place: int
) -> ShownCloud:
    """One sample of a batch as people look at it.

    Args:
        module: An `InstanceSegmentation`.
        outputs: Of its evaluation or prediction step.
        batch: What it was given.
        place: The sample in the batch.
    """
    here = batch["sample"] == place
    names = list(module.info.get("class_names") or ())
    truth = None
    # Scans of one's own have neither, or labels that say nothing.
    if "semantic" in batch and bool((batch["semantic"][here] < len(names)).any()):
        stuff = getattr(module, "stuff")  # noqa: B009
        semantic = batch["semantic"][here]
        instance = thing_instances(batch["instance"][here], semantic, len(names), stuff)
        truth = true_labelling(_array(instance), _array(semantic), names)
    found: Instances = outputs["instances"][place]
    # The weak ones would fill every gap between the others.
    clear = found.scores >= _CLEAR * found.scores.amax() if len(found.scores) else slice(0)
    found = Instances(found.masks[clear], found.labels[clear], found.scores[clear])
    labels = instance_names(module, found)
    prediction = found_labelling(_array(found.masks), labels, truth)
    share = outputs.get("share")
    image, size, heading = None, None, None
    one_frame = module.info.get("view") == "sv"
    if "image" in batch:
        pixels = batch["image"][place].float().cpu()
        pixels = pixels * torch.tensor(_STD).view(3, 1, 1) + torch.tensor(_MEAN).view(3, 1, 1)
        image = (255 * pixels.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    if one_frame:
        ahead = batch["pose"][place, :3, 2]
        heading = math.atan2(float(ahead[0]), float(ahead[1]))
    if "image_size" in batch:
        width, height = batch["image_size"][place].tolist()
        size = (int(width), int(height))
    return ShownCloud(
        name=batch["frame"][place],
        xyz=_array(batch["original_xyz"][here]).astype(np.float32),
        rgb=_array(batch["rgb"][here]),
        prediction=prediction,
        truth=truth,
        share=None if share is None else _array(share[here].float()),
        uv=_array(batch["uv"][here]) if one_frame and size is not None else None,
        image=image,
        image_size=size,
        heading=heading,
    )


def instance_names(module: Workload, found: Instances) -> list[str]:
    """What found instances are called: class and score."""
    names = list(module.info.get("class_names") or ())
    stuff = set(getattr(module, "stuff"))  # noqa: B009
    things = [name for i, name in enumerate(names) if i not in stuff]
    agnostic = bool(getattr(module, "agnostic"))  # noqa: B009
    return [
        f"{'object' if agnostic else things[label]} {score:.2f}"
        for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ]


def overlay_figure(clouds: list[ShownCloud]) -> "Figure":
    """A row for each cloud: the frame, its true and its found instances, and the gate.

    Frames are seen as their camera saw them, scenes from above.

    Args:
        clouds: At least one.
    """
    from matplotlib.figure import Figure

    columns = max(len(cloud.modes()) for cloud in clouds)
    figure = Figure(figsize=(3.6 * columns, 2.9 * len(clouds)))
    for row, cloud in enumerate(clouds):
        labels = {"truth": cloud.truth, "prediction": cloud.prediction}
        order = [m for m in ("input", "truth", "prediction", "gate") if m in cloud.modes()]
        for column, mode in enumerate(order):
            axes = figure.add_subplot(len(clouds), columns, row * columns + column + 1)
            _paint(axes, cloud, cloud.modes()[mode], labels.get(mode), mode)
            axes.set_title(cloud.name if mode == "input" else mode, fontsize=8)
    top = 1 - 0.25 / figure.get_figheight()
    figure.subplots_adjust(0.01, 0.01, 0.99, top, wspace=0.03, hspace=0.12)
    return figure


def _paint(
    axes: "Axes", cloud: ShownCloud, rgb: Array, labels: Labelling | None, mode: str
) -> None:
    import matplotlib.patheffects as effects

    axes.set(xticks=[], yticks=[])
    if cloud.uv is not None and cloud.image_size is not None:
        places, (width, height) = cloud.uv, cloud.image_size
        axes.set(xlim=(0, width), ylim=(height, 0))
        if cloud.image is not None:
            faint = 1.0 if mode == "input" else 0.35
            axes.imshow(cloud.image, extent=(0, width, height, 0), alpha=faint)
    else:
        order = cloud.xyz[:, 2].argsort(kind="stable")
        places, rgb = cloud.xyz[order, :2], rgb[order]
        labels = labels and Labelling(labels.number[order], labels.names, labels.colours)
    axes.set_aspect("equal")
    if mode != "input" or cloud.image is None:
        # Points of no instance would hide the image.
        shown = slice(None) if labels is None or cloud.image is None else labels.number >= 0
        size = 5 if len(places) < 10_000 else 2
        across, down = places[shown].T
        axes.scatter(across, down, size, rgb[shown] / 255, linewidths=0, rasterized=True)
    if labels is None:
        return
    sizes = np.bincount(labels.number[labels.number >= 0], minlength=len(labels.names))
    for i in np.flatnonzero(sizes > _NAMED * len(places)):
        x, y = np.median(places[labels.number == i], axis=0)
        text = axes.text(x, y, labels.names[i], fontsize=5, color="white", ha="center")
        text.set_path_effects([effects.withStroke(linewidth=1.2, foreground="black")])


def _array(x: Tensor) -> Array:
    out: Array = x.detach().cpu().numpy()
    return out
