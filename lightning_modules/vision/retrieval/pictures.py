"""Ranked lists: some queries, each beside the gallery images that came first."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from blocks.files import atomic_path
from lightning_modules.evaluation_pictures import EvaluationPictures
from lightning_modules.gathering import gathered
from lightning_modules.media import log_media
from lightning_modules.vision.retrieval.distances import FeatureDistances
from lightning_modules.vision.retrieval.metric import Collected
from lightning_modules.workload import Workload

_RIGHT, _WRONG, _QUERY = "#1a7f37", "#c62828", "#4a5259"
_HEIGHT_PX = 160


class RankedLists(EvaluationPictures):
    """Draws `pictures/{val,test}_ranked.png` in the run directory.

    A row is a query and the first gallery images, framed green where the identity is right and red
    where not. What the camera rule removes is not shown.

    Args:
        queries: How many queries, spread over all.
        gallery: How many gallery images for each.
        every_seconds: Least time between two drawings while training; the last one always comes.
    """

    def __init__(self, queries: int = 8, gallery: int = 10, every_seconds: float = 60.0) -> None:
        super().__init__(every_seconds)
        self.queries, self.gallery = queries, gallery
        self._paths: dict[int, str] = {}

    def _forget(self, module: LightningModule) -> None:
        self._paths = {}

    def _collect(self, module: LightningModule, outputs: Any, batch: dict[str, Any]) -> None:
        self._paths |= zip(batch["index"].tolist(), batch["path"], strict=True)

    def _draw(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        assert isinstance(module, Workload)
        paths = dict(gathered(trainer, list(self._paths.items())))
        metric: Any = getattr(module, f"{stage}_metric")
        found: Collected | None = metric.collected
        if not trainer.is_global_zero or found is None or not len(found.query):
            return
        rows = ranked_rows(found, self.queries, self.gallery, metric.protocol, metric.distance)
        if not rows or not all(index in paths for row in rows for index, *_ in row):
            return
        files = {
            index: Path(module.info.get("root") or ".") / paths[index]
            for row in rows
            for index, *_ in row
        }
        figure = ranked_figure(rows, files)
        path = Path(trainer.default_root_dir) / "pictures" / f"{stage}_ranked.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)
        log_media(trainer, f"{stage}/ranked", path)


# Place in the data set, identity, camera.
Shown = tuple[int, int, int]


def ranked_rows(
    found: Collected, queries: int, gallery: int, protocol: str, distance: Any
) -> list[list[Shown]]:
    """Queries, each followed by the first gallery images.

    Args:
        found: What was evaluated.
        queries: How many queries, spread over all that have a right image.
        gallery: How many gallery images for each.
        protocol: `cmc_camera` leaves out images of the query's identity and camera.
        distance: Distance of features.
    """
    rows: list[list[Shown]] = []
    sharing = torch.isin(found.query.identity, found.gallery.identity).nonzero().squeeze(1)
    if not len(sharing) or not len(found.gallery):
        return rows
    count = min(queries, len(sharing))
    for query in sharing[torch.arange(count) * len(sharing) // count].tolist():
        own = found.query[torch.tensor([query])]
        row = FeatureDistances(own.features, found.gallery.features, distance).rows(0, 1)[0]
        order = torch.from_numpy(row).argsort(stable=True)
        if protocol == "cmc_camera":
            same = (found.gallery.identity == own.identity) & (found.gallery.camera == own.camera)
            order = order[~same[order]]
        first = order[:gallery]
        sides = (
            (own, found.query_index[[query]]),
            (found.gallery[first], found.gallery_index[first]),
        )
        rows.append(
            [
                shown
                for samples, index in sides
                for shown in zip(
                    index.tolist(), samples.identity.tolist(), samples.camera.tolist(), strict=True
                )
            ]
        )
    return rows


def ranked_figure(rows: list[list[Shown]], files: dict[int, Path]) -> Figure:
    """Draws ranked lists.

    Args:
        rows: Each a query and its gallery images.
        files: Image file by place in the data set.
    """
    images = {index: _thumbnail(path) for index, path in files.items()}
    columns = max(len(row) for row in rows)
    # Cells are one unit wide, and as high as the tallest image needs, with two lines of text above.
    height = max(image.height / image.width for image in images.values())
    text, gap = 0.36, 0.12
    pitch = height + text + gap
    figure = Figure(figsize=(1.15 * columns * (1 + gap), 1.15 * len(rows) * pitch))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    for line, row in enumerate(rows):
        for place, (index, identity, camera) in enumerate(row):
            right = identity == row[0][1]
            color = (_RIGHT if right else _WRONG) if place else _QUERY
            title = f"{place or 'query'}: id {identity}\ncamera {camera}"
            corner = (place * (1 + gap), line * pitch + text)
            _show(axis, images[index], corner, title, color)
    axis.set(xlim=(-gap, columns * (1 + gap)), ylim=(len(rows) * pitch, 0))
    return figure


def _show(
    axis: Axes, image: Image.Image, corner: tuple[float, float], title: str, color: str
) -> None:
    """Draws an image one unit wide, framed, with its title above."""
    left, top = corner
    height = image.height / image.width
    axis.imshow(image, extent=(left, left + 1, top + height, top), aspect="auto")
    axis.add_patch(Rectangle(corner, 1, height, fill=False, edgecolor=color, linewidth=3))
    axis.text(left, top - 0.05, title, fontsize=8, color=color, va="bottom")


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.draft("RGB", (_HEIGHT_PX, _HEIGHT_PX))  # JPEG decodes small ones at once.
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((4 * _HEIGHT_PX, _HEIGHT_PX))
    return small
