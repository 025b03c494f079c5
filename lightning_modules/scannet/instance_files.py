"""Files of `predict`: the instances of every frame, scan or cloud of one's own.

The benchmark's own format is `ScanNetSubmission`'s.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from blocks.files import atomic_path
from lightning_modules.file_names import file_names
from lightning_modules.scannet.cloud_files import write_clouds
from lightning_modules.scannet.cloud_viewer import write_cloud_page
from lightning_modules.scannet.instance_pictures import instance_names, shown_cloud
from lightning_modules.scannet.instances import Instances
from lightning_modules.workload import Workload


class InstanceFiles(Callback):
    """Writes the instances of each sample into `instances/` of the run directory.

    They are `<name>.npz` with masks (M, P) packed by `numpy.packbits` along points, labels,
    class_ids and scores (M,), and `metadata`, JSON with names and the number of points;
    `<name>_*.ply`, the cloud in the colours of input and instances; `<name>.html`, a page to turn
    it.

    Args:
        clouds: Write PLY files.
        pages: Write pages.
        min_score: Instances in files score at least this, in 0..1.
    """

    def __init__(
        self,
        clouds: bool = True,
        pages: bool = True,
        min_score: float = 0.1,
    ) -> None:
        super().__init__()
        self.clouds, self.pages, self.min_score = clouds, pages, min_score
        self._taken: set[str] = set()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the names of an earlier run."""
        self._taken = set()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the files of a batch; samples are distinct, so processes do not meet."""
        assert isinstance(pl_module, Workload)
        folder = Path(trainer.default_root_dir) / "instances"
        shown = dict(outputs, instances=[self._clear(i) for i in outputs["instances"]])
        names = file_names(batch["frame"], self._taken)
        self._taken |= {name.lower() for name in names}
        for place, (frame, name) in enumerate(zip(batch["frame"], names, strict=True)):
            write_instances(folder / f"{name}.npz", frame, shown["instances"][place], pl_module)
            if self.clouds or self.pages:
                cloud = shown_cloud(pl_module, shown, batch, place)
                if self.clouds:
                    write_clouds(folder, name, cloud)
                if self.pages:
                    write_cloud_page(folder / f"{name}.html", [cloud], frame)

    def _clear(self, found: Instances) -> Instances:
        keep = found.scores >= self.min_score
        return Instances(found.masks[keep], found.labels[keep], found.scores[keep])


def class_ids(module: Workload, found: Instances) -> torch.Tensor:
    """Ids of instances' classes in the label table, (M,); 0 where classes do not count."""
    ids = list(module.info.get("class_ids") or ())
    stuff = set(getattr(module, "stuff"))  # noqa: B009
    if getattr(module, "agnostic") or not ids:  # noqa: B009
        return torch.zeros_like(found.labels)
    things = torch.tensor([n for i, n in enumerate(ids) if i not in stuff])
    return things[found.labels.cpu()]


def write_instances(path: Path, frame: str, found: Instances, module: Workload) -> None:
    """Writes instances as arrays."""
    masks = found.masks.cpu().numpy()
    facts = {
        "frame": frame,
        "points": masks.shape[1],
        "names": instance_names(module, found),
        "masks": "numpy.unpackbits(masks, axis=1, count=points)",
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            masks=np.packbits(masks, axis=1),
            labels=found.labels.cpu().numpy(),
            class_ids=class_ids(module, found).numpy(),
            scores=found.scores.float().cpu().numpy(),
            metadata=np.array(json.dumps(facts)),
        )
