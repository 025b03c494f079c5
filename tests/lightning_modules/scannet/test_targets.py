"""Ground truth of superpoints against vectors of ESAM, and the frames that broke upstream."""

import numpy as np
import torch
import torch.nn.functional as F

from lightning_modules.scannet.targets import STUFF, majority, make_targets, thing_labels
from tests.conftest import GOLDEN

VECTORS = np.load(GOLDEN / "scannet" / "annotations.npz")


def vector(name: str) -> torch.Tensor:
    return torch.from_numpy(VECTORS[f"ann/{name}"])


def test_targets_equal_esam() -> None:
    names = ("in_instance", "in_semantic", "superpoints")
    targets = make_targets(*map(vector, names), 40, num_semantic=10, stuff=(0, 1))
    truth, instances = vector("gt_sp_masks"), len(targets.labels)
    assert torch.equal(targets.labels, vector("gt_labels_3d")[:instances])
    assert torch.equal(targets.superpoint_masks, truth[:instances])
    assert torch.equal(F.one_hot(targets.semantic, 11).T.bool(), truth[instances:])
    expected = vector("out_instance") == torch.arange(instances).unsqueeze(1)
    assert torch.equal(targets.point_masks, expected)


def test_labels_leave_out_wall_and_floor_of_the_official_order() -> None:
    assert thing_labels(torch.tensor([1, 3, 4, 199]), STUFF).tolist() == [0, 1, 2, 197]


def test_half_a_superpoint_belongs_to_nobody() -> None:
    group = torch.tensor([0, 0, 1, 1, 1])
    assert majority(group, torch.tensor([4, 5, 6, 6, 5]), 2, 9).tolist() == [9, 6]


def test_a_frame_without_instances_or_without_ignored_points_is_fine() -> None:
    superpoint = torch.tensor([0, 0, 1, 1])
    floor = make_targets(torch.full((4,), 3), torch.full((4,), 2), superpoint, 2)
    assert len(floor.labels) == 0 and floor.point_masks.shape == (0, 4)
    assert floor.superpoint_masks.shape == (0, 2) and floor.semantic.tolist() == [2, 2]
    chairs = make_targets(torch.tensor([5, 5, 9, 9]), torch.full((4,), 1), superpoint, 2)
    assert chairs.labels.tolist() == [0, 0] and chairs.superpoint_masks.tolist() == [
        [True, False],
        [False, True],
    ]


def test_class_agnostic_targets_have_one_class() -> None:
    given = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 7, 7]), torch.tensor([0, 0, 1, 1])
    assert make_targets(*given, 2).labels.tolist() == [0, 5]
    assert make_targets(*given, 2, agnostic=True).labels.tolist() == [0, 0]
