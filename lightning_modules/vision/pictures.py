"""Pictures of a classifier at work: a grid of validation images and the confusion matrix."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from blocks.files import atomic_path
from lightning_modules.evaluation_pictures import EvaluationPictures
from lightning_modules.media import log_media
from lightning_modules.workload import Workload

_RIGHT, _WRONG = "#1a7f37", "#c62828"


class ClassificationPictures(EvaluationPictures):
    """Draws `pictures/{val,test}_grid.png` and `_confusion.png` in the run directory.

    Args:
        images: How many images the grid shows.
        every_seconds: Least time between two drawings while training; the last one always comes.
    """

    def __init__(self, images: int = 40, every_seconds: float = 60.0) -> None:
        super().__init__(every_seconds)
        self.images = images
        self._shown: list[tuple[Tensor, int, int, float]] = []
        self._seen = 0
        self._wanted: set[int] = set()
        self._confusion = torch.zeros(0, 0, dtype=torch.long)

    def _forget(self, module: LightningModule) -> None:
        assert isinstance(module, Workload)
        classes = len(module.info["class_names"])
        self._shown = []
        # Spread over the whole set: validation images come class by class.
        size = -(-module.info["num_val"] // module.trainer.world_size)
        count = min(self.images, size)
        self._seen, self._wanted = 0, {i * size // count for i in range(count)}
        self._confusion = torch.zeros(classes, classes, dtype=torch.long, device=module.device)

    def _collect(self, module: LightningModule, outputs: Any, batch: dict[str, Any]) -> None:
        logits: Tensor = outputs["logits"]
        labels, classes = batch["label"], len(self._confusion)
        known = labels >= 0
        guesses = logits.argmax(1)
        cells = labels[known] * classes + guesses[known]
        self._confusion += cells.bincount(minlength=classes * classes).view(classes, classes)
        confidence = logits.softmax(1).amax(1)
        for i in range(len(labels)):
            if self._seen + i not in self._wanted:
                continue
            self._shown.append(
                (batch["image"][i].cpu(), int(labels[i]), int(guesses[i]), float(confidence[i]))
            )
        self._seen += len(labels)

    def _draw(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        assert isinstance(module, Workload)
        confusion = trainer.strategy.reduce(self._confusion, reduce_op="sum")
        if not trainer.is_global_zero or not self._shown:
            return
        names = [str(name) for name in module.info["class_names"]]
        folder = Path(trainer.default_root_dir) / "pictures"
        pictures = {
            "grid": image_grid(self._shown, names, module.info),
            "confusion": confusion_figure(torch.as_tensor(confusion), names),
        }
        for name, figure in pictures.items():
            path = folder / f"{stage}_{name}.png"
            _save(figure, path)
            log_media(trainer, f"{stage}/{name}", path)


def image_grid(
    shown: list[tuple[Tensor, int, int, float]], names: list[str], info: dict[str, Any]
) -> Figure:
    """Images with their prediction: green where it is the truth, red with both names where not.

    Args:
        shown: Normalised image (3, H, W), label, guess and confidence in 0..1 of each.
        names: Class names.
        info: `mean` and `std` the images were normalised with.
    """
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    mean, std = (torch.tensor(info[name]).view(3, 1, 1) for name in ("mean", "std"))
    for axis, (image, label, guess, confidence) in zip(axes.flat, shown, strict=False):
        axis.imshow((image.float() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy())
        wrong = label >= 0 and label != guess
        text = f"{names[guess]} {confidence:.0%}" + f"\nis {names[label]}" * wrong
        axis.set_title(text, fontsize=9, color=_WRONG if wrong else _RIGHT)
    return figure


def confusion_figure(confusion: Tensor, names: list[str]) -> Figure:
    """Confusion matrix as row percentages, with counts where there is room.

    Args:
        confusion: Counts (truth, prediction).
        names: Class names.
    """
    counts = confusion.cpu()
    share = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    classes = len(names)
    side = min(max(4.5, 0.5 * classes + 2), 14)
    figure = Figure(figsize=(side * 1.1, side), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(picture, ax=axis, label="% of the class", shrink=0.8)
    right, total = int(counts.diagonal().sum()), int(counts.sum())
    axis.set(xlabel="prediction", ylabel="truth")
    axis.set_title(f"{right} of {total} right ({100 * right / max(total, 1):.2f} %)")
    if classes <= 40:
        axis.set_xticks(range(classes), names, rotation=90 if classes > 12 else 0)
        axis.set_yticks(range(classes), names)
    if classes <= 20:
        for row, column in counts.nonzero().tolist():
            color = "white" if share[row, column] > 50 else "black"
            text = str(int(counts[row, column]))
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
