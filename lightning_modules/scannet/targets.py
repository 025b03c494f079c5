"""What the segmenter should say about a sample: instances and classes, by point and by superpoint.

The rules are those of filaPro/oneformer3d and xuxw98/ESAM: instances of stuff (wall, floor) and of
ignored points do not count; a superpoint belongs to an instance that covers more than half of it;
the class of an instance is that of its first point.

Shapes, one sample: P points, S superpoints, G instances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Of ScanNet200 in its official order: wall and floor.
STUFF = (0, 2)


@dataclass(frozen=True)
class Targets:
    """Ground truth of one sample.

    Args:
        labels: Class of each instance among the things, (G,), 0..classes-1.
        point_masks: Its points, (G, P) bool.
        superpoint_masks: Its superpoints, (G, S) bool.
        semantic: Class of each superpoint, (S,); the number of classes where there is none.
    """

    labels: Tensor
    point_masks: Tensor
    superpoint_masks: Tensor
    semantic: Tensor

    def masks(self, over_points: bool) -> Tensor:
        """(G, P) or (G, S)."""
        return self.point_masks if over_points else self.superpoint_masks


def make_targets(
    instance: Tensor,
    semantic: Tensor,
    superpoint: Tensor,
    count: int,
    *,
    num_semantic: int = 200,
    stuff: Sequence[int] = STUFF,
    agnostic: bool = False,
) -> Targets:
    """Ground truth of one sample from the labels of its points.

    Args:
        instance: Object of each point, (P,); -1 for none, numbers may have gaps.
        semantic: Class of each point, (P,), 0..num_semantic-1; num_semantic = ignored.
        superpoint: Superpoint of each point, (P,), 0..count-1.
        count: Superpoints S.
        num_semantic: Semantic classes.
        stuff: Classes without instances.
        agnostic: Give all instances class 0.
    """
    numbers = thing_instances(instance, semantic, num_semantic, stuff)
    ids = torch.unique(numbers[numbers >= 0])
    place = torch.bucketize(numbers, ids) if len(ids) else torch.zeros_like(numbers)
    instances = len(ids)
    # The last column takes points of no instance.
    column = torch.where(numbers >= 0, place, instances)
    point_masks = column == torch.arange(instances, device=column.device).unsqueeze(1)
    first = point_masks.to(torch.uint8).argmax(1)
    labels = torch.zeros_like(first) if agnostic else thing_labels(semantic[first], stuff)
    covered = majority(superpoint, column, count, instances)
    superpoint_masks = covered == torch.arange(instances, device=column.device).unsqueeze(1)
    return Targets(
        labels, point_masks, superpoint_masks, majority(superpoint, semantic, count, num_semantic)
    )


def thing_instances(
    instance: Tensor, semantic: Tensor, num_semantic: int = 200, stuff: Sequence[int] = STUFF
) -> Tensor:
    """Instance numbers (P,) with -1 on stuff and ignored points."""
    excluded = torch.tensor([*stuff, num_semantic], device=semantic.device)
    return torch.where(torch.isin(semantic, excluded), -1, instance)


def thing_labels(semantic: Tensor, stuff: Sequence[int] = STUFF) -> Tensor:
    """Places of classes among those that are no stuff: 1 (chair) is 0, 3 (table) is 1, ..."""
    sorted_stuff = torch.tensor(sorted(stuff), device=semantic.device)
    return semantic - torch.bucketize(semantic, sorted_stuff)


def majority(group: Tensor, label: Tensor, groups: int, none: int) -> Tensor:
    """The label of more than half of a group's members.

    Args:
        group: (P,), 0..groups-1.
        label: (P,), 0..none; `none` counts as a label like the others.
        groups: Number of groups.
        none: The answer where no label has more than half.

    Returns:
        (groups,).
    """
    # Pairs that occur, not a table of all: groups x labels would be large in whole scenes.
    pairs, counts = torch.unique(group * (none + 1) + label, return_counts=True)
    owner, value = pairs // (none + 1), pairs % (none + 1)
    size = torch.bincount(group, minlength=groups)
    wins = 2 * counts > size[owner]
    out = torch.full((groups,), none, dtype=torch.long, device=group.device)
    out[owner[wins]] = value[wins]
    return out
