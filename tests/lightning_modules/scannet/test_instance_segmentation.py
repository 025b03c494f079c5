"""The task: what it refuses, logs, learns, and that its scores are those of the evaluator."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from datamodules.scannet.classes import THINGS
from datamodules.scannet.scannet_info import CLASS_NAMES, GROUPS, ScanNetInfo
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.scannet import (
    Consistency,
    Inference,
    InstanceSegmentation,
    InstanceSegmenter,
    StageWeights,
)
from lightning_modules.scannet.instance_ap import InstanceAP
from tests.lightning_modules.scannet.frames import (
    PointwiseBackbone,
    small_batch,
    small_fusion,
    small_segmenter,
    small_task,
)

FACTS = ScanNetInfo(
    batch_size=2, protocol="frames of a test", root="nowhere", synthetic=True, hash="0", view="sv",
    class_names=CLASS_NAMES, class_ids=tuple(range(200)), class_groups=GROUPS, things=THINGS,
    superpoints="cells", image=True, image_size=(48, 32), color=True, num_train=2, num_eval=2,
    left_out=0,
)  # fmt: skip
LOOSE = Inference(min_points=5)
FAST = Optimizer(lr=3e-3, lr_scale_batch=None)
CONSTANT = Schedule(shape="constant", warmup_epochs=0)


class Frames(LightningDataModule):
    """The same small frames again and again."""

    def __init__(self, batches: int = 1, facts: ScanNetInfo = FACTS) -> None:
        super().__init__()
        self.batches, self.info = batches, facts

    def _loader(self, count: int) -> Any:
        batches = [small_batch(image=self.info.image, seed=i) for i in range(count)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def train_dataloader(self) -> Any:
        return self._loader(self.batches)

    def val_dataloader(self) -> Any:
        return self._loader(1)

    test_dataloader = predict_dataloader = val_dataloader


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "default_root_dir": folder}
    return Trainer(**(quiet | options))


def test_it_learns_two_frames_by_heart(tmp_path: Path) -> None:
    task = small_task(inference=LOOSE, optimizer=FAST, schedule=CONSTANT)
    for metric in task.scores.modules():
        if isinstance(metric, InstanceAP):
            metric.min_points = 5
    fit = trainer(tmp_path, max_epochs=220, check_val_every_n_epoch=220, num_sanity_val_steps=0)
    fit.fit(task, Frames())
    values = {name: float(value) for name, value in fit.callback_metrics.items()}
    assert values["val/ap50"] > 90 > values["val/floor_ap50"]
    assert values["val/ceiling_ap50"] == 100
    assert {"train/loss_sem", "train/loss_cls", "train/loss_mask", "train/loss_clip"} <= set(values)
    assert values["train/in_image"] == pytest.approx(0.9, abs=0.05) and 0 < values["val/gate"] < 1
    assert (tmp_path / "pictures" / "val_instances.png").is_file()
    assert (tmp_path / "clouds" / "val.html").is_file()
    rows = (tmp_path / "per_class.csv").read_text().splitlines()
    assert rows[0] == "class,group,ap,ap50,ap25" and rows[1].startswith("all,,")


def test_class_aware_scores_have_groups_and_a_table_of_classes(tmp_path: Path) -> None:
    task = InstanceSegmentation(small_segmenter(num_classes=198), inference=LOOSE)
    for metric in task.scores.modules():
        if isinstance(metric, InstanceAP):
            metric.min_points = 5
    run = trainer(tmp_path)
    run.test(task, Frames(facts=FACTS), verbose=False)
    values = run.callback_metrics
    assert {"test/ap", "test/head50", "test/ceiling_ap50"} <= set(values)
    assert "test/tail50" not in values  # No such class in these frames.
    rows = (tmp_path / "per_class.csv").read_text().splitlines()
    assert len(rows) == 1 + 198 + 3 + 3 and rows[1].startswith("chair,head,")
    assert task.scores["test"].latest["ceiling_ap50"] == pytest.approx(100)  # type: ignore[union-attr]


def test_ceiling_and_floor_are_those_of_the_whole_split(tmp_path: Path) -> None:
    class Two(Frames):
        def val_dataloader(self) -> Any:
            return self._loader(2)

    found = []
    for sanity in (0, 1):
        task = small_task(fusion=False, inference=LOOSE)
        for metric in task.scores.modules():
            if isinstance(metric, InstanceAP):
                metric.min_points = 5
        run = trainer(tmp_path, max_epochs=2, num_sanity_val_steps=sanity)
        run.fit(task, Two())
        found.append({k: float(v) for k, v in run.callback_metrics.items() if "floor" in k})
    assert found[0] == found[1] and set(found[0]) >= {"val/floor_ap50"}


def test_points_alone_need_no_image_and_a_fusion_does(tmp_path: Path) -> None:
    from dataclasses import replace

    bare = Frames(facts=replace(FACTS, image=False))
    task = small_task(fusion=False, inference=LOOSE)
    trainer(tmp_path, max_epochs=1).fit(task, bare)
    with pytest.raises(SuiteError, match="data.init_args.image"):
        trainer(tmp_path).test(small_task(inference=LOOSE), bare, verbose=False)
    with pytest.raises(SuiteError, match="inputs: occupancy"):
        task = small_task(fusion=False)
        trainer(tmp_path).test(task, Frames(facts=replace(FACTS, color=False)), verbose=False)


def test_wrong_widths_and_classes_are_refused_with_their_key(tmp_path: Path) -> None:
    aware = InstanceSegmentation(small_segmenter(num_classes=1))
    with pytest.raises(SuiteError, match="num_classes 198 with agnostic: false"):
        trainer(tmp_path).test(aware, Frames(), verbose=False)
    fused = small_segmenter(small_fusion())
    with pytest.raises(SuiteError, match="decoder.in_channels 12"):
        InstanceSegmenter(fused.backbone, fused.decoder)
    with pytest.raises(SuiteError, match="an InstanceSegmenter"):
        InstanceSegmentation(PointwiseBackbone())


def test_a_sample_is_segmented_alike_alone_and_in_a_batch() -> None:
    task, batch = small_task(inference=LOOSE).eval(), small_batch()
    alone = small_batch(samples=1)
    alone["image"] = batch["image"][:1]
    with torch.no_grad():
        both, one = task(batch), task(alone)
    for found, expected in zip(both.decoded[0], one.decoded[0], strict=True):
        torch.testing.assert_close(found.masks, expected.masks, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.classes, expected.classes, atol=1e-4, rtol=1e-4)


def test_accumulated_gradients_are_those_of_both_batches(tmp_path: Path) -> None:
    weights = []
    for accumulate, batches in ((2, 2), (1, 2)):
        task = small_task(
            optimizer=Optimizer(name="sgd", lr=1e-2, lr_scale_batch=None), schedule=CONSTANT
        )
        before = task.network.decoder.out_cls[2].weight.detach().clone()  # type: ignore[union-attr]
        run = trainer(
            tmp_path, max_epochs=1, accumulate_grad_batches=accumulate, limit_val_batches=0
        )
        run.fit(task, Frames(batches))
        assert run.global_step == batches // accumulate
        weights.append((task.network.decoder.out_cls[2].weight.detach() - before).norm())  # type: ignore[union-attr]
    assert all(math.isfinite(w) and w > 0 for w in weights)


def test_mixed_precision_trains_to_nearly_the_same_loss(tmp_path: Path) -> None:
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        run = trainer(tmp_path, max_epochs=1, limit_val_batches=1, precision=precision)
        run.fit(small_task(inference=LOOSE), Frames())
        losses.append(float(run.callback_metrics["train/loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_stages_scale_the_loss_and_are_logged(tmp_path: Path) -> None:
    stages = StageWeights(enabled=True, normalize=False)
    task = small_task(stages=stages, consistency=Consistency(weight=1.0, neighbour_weight=0.5))
    run = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    run.fit(task, Frames())
    values = {name.removeprefix("train/"): float(v) for name, v in run.callback_metrics.items()}
    weights = stages.weights(0.0)
    expected = sum(weights[name] * values[name] for name in weights)
    assert values["loss"] == pytest.approx(expected, rel=1e-4) and values["stage"] == 0


def test_a_checkpoint_rebuilds_the_task_without_data(tmp_path: Path) -> None:
    task = small_task(inference=LOOSE)
    run = trainer(tmp_path, max_epochs=1, enable_checkpointing=True)
    run.fit(task, Frames())
    path = tmp_path / "a.ckpt"
    run.save_checkpoint(path)
    again = InstanceSegmentation.load_from_checkpoint(path).eval()
    assert again.info["view"] == "sv" and again.agnostic and again.stuff == (0, 2)
    assert again.inference == LOOSE
    with torch.no_grad():
        first, second = (t.eval()(small_batch()).decoded[0][-1].masks for t in (task, again))
    assert torch.equal(first, second)


def test_predict_writes_files_for_frames_without_truth(tmp_path: Path) -> None:
    import numpy as np

    class Unlabelled(Frames):
        def _loader(self, count: int) -> Any:
            batch = small_batch()
            for name in ("instance", "semantic"):
                del batch[name]
            return DataLoader([batch], batch_size=None)  # type: ignore[list-item,arg-type]

    task = small_task(inference=Inference(min_points=1))
    from lightning_modules.scannet import InstanceFiles

    run = trainer(tmp_path, callbacks=[InstanceFiles(min_score=0.0)])
    run.predict(task, Unlabelled(), return_predictions=False)
    folder = tmp_path / "instances"
    names = {path.name for path in folder.iterdir()}
    assert {"scene0000_00_0.npz", "scene0001_00_0.html", "scene0000_00_0_prediction.ply"} <= names
    with np.load(folder / "scene0000_00_0.npz") as archive:
        masks = np.unpackbits(archive["masks"], axis=1, count=240).astype(bool)
        assert len(masks) == len(archive["scores"]) == len(archive["labels"]) > 0
        assert masks.any(1).all() and (np.diff(archive["scores"]) <= 0).all()
