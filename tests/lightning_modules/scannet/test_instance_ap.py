"""The metric: the evaluator's numbers, from tensors, on any number of processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.scannet.average_precision import average_precision, match
from lightning_modules.scannet.instance_ap import InstanceAP, thing_groups
from tests.conftest import ROOT


def frame(seed: int, points: int = 900) -> dict[str, Tensor]:
    """Seven objects of 100 to 180 points on floor and wall, and ten masks near them."""
    rng = np.random.default_rng(seed)
    instance = np.sort(rng.integers(-1, 7, points))
    semantic = np.where(instance < 0, 200, instance % 5)
    centres, widths = rng.integers(0, points, 10), rng.integers(55, 90, 10)
    masks = np.abs(np.arange(points) - centres[:, None]) < widths[:, None]
    things = semantic[centres]
    labels = np.where(np.isin(things, (0, 2, 200)), 0, things - 1 - (things > 2))
    scores = rng.random(10).astype(np.float32).round(1)
    arrays = {"masks": masks, "labels": labels, "scores": scores}
    arrays |= {"instance": instance, "semantic": semantic}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def filled(agnostic: bool, seeds: range, **options: Any) -> InstanceAP:
    metric = InstanceAP(agnostic, **options)
    for seed in seeds:
        metric.update(**frame(seed))
    return metric


@pytest.mark.parametrize("agnostic", [True, False])
def test_it_gives_the_evaluators_numbers(agnostic: bool) -> None:
    records = []
    for seed in range(6):
        f = {name: value.numpy() for name, value in frame(seed).items()}
        semantic = f["semantic"]
        void = np.isin(semantic, (0, 2, 200)) | (f["instance"] < 0)
        label = np.where(void, -1, semantic - 1 - (semantic > 2))
        if agnostic:
            label, f["labels"] = np.where(void, -1, 0), np.zeros_like(f["labels"])
        records.append(match(f["masks"], f["labels"], f["scores"], f["instance"], label))
    expected = average_precision(records, 1 if agnostic else 198).summary()
    found = filled(agnostic, range(6)).compute()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=1e-7)
    assert 0.05 < found["ap25"] < 1


def test_groups_are_means_over_their_classes() -> None:
    groups = {"head": (0, 1), "tail": (2,), "rare": (150,)}
    metric = filled(False, range(4), groups=groups)
    found = metric.compute()
    assert metric.result is not None
    for name, classes in groups.items():
        expected = metric.result.summary(classes)["ap50"]
        torch.testing.assert_close(found[f"{name}50"].item(), expected, equal_nan=True)
    assert found["rare"].isnan()
    assert not set(filled(True, range(2), groups=groups).compute()) & {"head", "tail"}


def test_groups_come_from_the_data() -> None:
    groups = thing_groups(["head", "tail", "head", "tail", "common"])
    assert groups == {"tail": (0, 1), "common": (2,)}


def test_order_of_samples_does_not_matter_and_reset_forgets() -> None:
    one, two = filled(False, range(5)), InstanceAP(False)
    for seed in reversed(range(5)):
        two.update(**frame(seed))
    assert one.compute() == two.compute()
    two.reset()
    assert two.compute()["ap"].isnan()


def test_a_frame_without_masks_or_instances_counts() -> None:
    metric = filled(True, range(1))
    before = metric.compute()["ap25"]
    empty = frame(1)
    nothing = {k: empty[k][:0] for k in ("masks", "labels", "scores")}
    metric.update(**(empty | nothing))
    assert metric.compute()["ap25"] < before, "what is missed there is missed"
    low = metric.compute()["ap25"]
    bare = frame(0) | {"instance": torch.full((900,), -1)}
    metric.update(**bare)
    assert metric.compute()["ap25"] == low, "masks on void are excused"
    alone = InstanceAP(True)
    alone.update(**bare)
    assert alone.compute()["ap"].isnan()


def on_rank(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    # Three frames on one process, two on the other; one of these has no mask at all.
    metric = filled(False, range(rank, 5, world))
    if rank:
        bare = frame(9)
        metric.update(**(bare | {k: bare[k][:0] for k in ("masks", "labels", "scores")}))
    torch.save({k: v.item() for k, v in metric.compute().items()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    code = "from tests.lightning_modules.scannet.test_instance_ap import on_rank; on_rank{}"
    commands = [[sys.executable, "-c", code.format((rank, 2, str(tmp_path)))] for rank in range(2)]
    running = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    assert [process.wait() for process in running] == [0, 0]
    metric = filled(False, range(5))
    bare = frame(9)
    metric.update(**(bare | {k: bare[k][:0] for k in ("masks", "labels", "scores")}))
    expected = {k: v.item() for k, v in metric.compute().items()}
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)
