"""Files of the ScanNet benchmark: a list of masks for each scene, and a file of 0 and 1 for each.

    <scene>.txt                  pred_mask/<scene>_000.txt <class id> <confidence>
    pred_mask/<scene>_000.txt    one line for each vertex

Source: ScanNet/ScanNet, BenchmarkScripts/3d_evaluation/evaluate_semantic_instance.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from blocks.errors import SuiteError
from blocks.files import write_text
from lightning_modules.scannet.instances import Instances
from lightning_modules.workload import Workload

_MASKS = "pred_mask"


def write_submission(
    folder: Path, scene: str, instances: Instances, class_ids: Sequence[int]
) -> Path:
    """Writes the files of one scene; returns its list.

    Args:
        folder: Of the submission.
        scene: Name of the scene; a frame's slash becomes an underscore.
        instances: What was found.
        class_ids: Id in ScanNet's label table of each of its labels.
    """
    name = scene.replace("/", "_")
    masks = instances.masks.cpu().numpy()
    found = zip(masks, instances.labels.tolist(), instances.scores.tolist(), strict=True)
    lines = []
    for number, (mask, label, score) in enumerate(found):
        file = f"{_MASKS}/{name}_{number:03d}.txt"
        write_text(folder / file, "\n".join(np.where(mask, "1", "0").tolist()) + "\n")
        lines.append(f"{file} {class_ids[label]} {score:.6f}\n")
    path = folder / f"{name}.txt"
    write_text(path, "".join(lines))
    return path


class ScanNetSubmission(Callback):
    """Writes what `predict` finds as the ScanNet benchmark wants it, into `submission/`.

    Points are vertices, in the order of the scan's file. Every process writes its own scenes.
    """

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the scenes of a batch."""
        assert isinstance(pl_module, Workload)
        if getattr(pl_module, "agnostic", False):
            raise SuiteError(
                expected="a model that tells classes: the benchmark scores them",
                found="a class-agnostic one",
                where="ScanNetSubmission",
                cure="remove the callback, or train with agnostic: false",
            )
        ids = pl_module.info["class_ids"]
        things = [ids[place] for place in pl_module.info["things"]]
        folder = Path(trainer.default_root_dir) / "submission"
        for scene, instances in zip(batch["frame"], outputs["instances"], strict=True):
            write_submission(folder, scene, instances, things)
