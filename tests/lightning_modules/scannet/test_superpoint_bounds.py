"""Bounds by superpoints alone, and files for the benchmark."""

from pathlib import Path

import torch

from lightning_modules.scannet.instance_ap import InstanceAP
from lightning_modules.scannet.instances import Instances
from lightning_modules.scannet.submission import write_submission
from lightning_modules.scannet.superpoint_bounds import oracle_instances, superpoint_instances


def test_perfect_superpoints_reach_everything() -> None:
    instance = torch.arange(5).repeat_interleave(150)
    semantic = instance + 3
    metric = InstanceAP(False)
    found = oracle_instances(instance, semantic, instance * 1, agnostic=False)
    metric.update(found.masks, found.labels, found.scores, instance, semantic)
    assert metric.compute()["ap"] == 1
    assert found.labels.tolist() == [1, 2, 3, 4, 5]


def test_coarse_superpoints_lose_the_smaller_instance() -> None:
    instance = torch.tensor([0, 1]).repeat_interleave(torch.tensor([200, 120]))
    semantic = torch.full_like(instance, 9)
    one = torch.zeros_like(instance)
    found = oracle_instances(instance, semantic, one, agnostic=True)
    assert found.masks.sum(1).tolist() == [320, 0]


def test_one_mask_for_each_superpoint_largest_first() -> None:
    superpoint = torch.tensor([2, 0, 1, 1, 1, 0])
    found = superpoint_instances(superpoint)
    assert found.masks.int().sum(1).tolist() == [3, 2, 1]
    assert found.masks.int().sum(0).tolist() == [1] * 6
    assert (found.scores[:-1] > found.scores[1:]).all() and not found.labels.any()


def test_files_of_the_benchmark(tmp_path: Path) -> None:
    masks = torch.tensor([[1, 0, 1], [0, 0, 1]]).bool()
    found = Instances(masks, torch.tensor([0, 2]), torch.tensor([0.75, 0.5]))
    path = write_submission(tmp_path, "scene0011_00", found, class_ids=(2, 4, 5))
    lines = path.read_text().splitlines()
    assert lines == [
        "pred_mask/scene0011_00_000.txt 2 0.750000",
        "pred_mask/scene0011_00_001.txt 5 0.500000",
    ]
    assert (tmp_path / lines[0].split()[0]).read_text() == "1\n0\n1\n"
    assert (
        write_submission(tmp_path, "scene0000_00/200", found, (2, 4, 5)).stem == "scene0000_00_200"
    )
