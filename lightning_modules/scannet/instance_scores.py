"""Average precision of a segmenter, with the ceiling and the floor that superpoints set it."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_modules.scannet.average_precision import APScores
from lightning_modules.scannet.instance_ap import InstanceAP
from lightning_modules.scannet.instances import Instances
from lightning_modules.scannet.superpoint_bounds import oracle_instances, superpoint_instances
from lightning_modules.scannet.targets import majority, thing_labels

_GROUPS = ("head", "common", "tail")


class InstanceScores(nn.Module):
    """Scores of a split, exact on any number of processes.

    Args:
        agnostic: Whether all instances are of one class.
        num_classes: Classes that have instances.
        num_semantic: Classes of points.
    """

    # In percent, as tables of the literature have them.
    UNITS: ClassVar[dict[str, str]] = {
        f"{name}{at}": "%"
        for name in ("ap", *_GROUPS, "ceiling_ap", "floor_ap")
        for at in ("", "50", "25")
    }

    def __init__(self, agnostic: bool, num_classes: int = 198, num_semantic: int = 200) -> None:
        super().__init__()
        self.agnostic, self.num_semantic = agnostic, num_semantic
        self.found, self.ceiling, self.floor = (
            InstanceAP(agnostic, num_classes, num_semantic) for _ in range(3)
        )
        self.latest: dict[str, float] = {}
        self._bounds: dict[str, float] = {}

    def describe(self, groups: Mapping[str, Sequence[int]], stuff: tuple[int, ...]) -> None:
        """Takes over what the data says about classes.

        Args:
            groups: Labels by group, such as head, common and tail.
            stuff: Classes without instances.
        """
        for metric in (self.found, self.ceiling, self.floor):
            metric.groups, metric.stuff = dict(groups), stuff
        self._bounds = {}

    @property
    def updated(self) -> bool:
        """Whether anything was evaluated since the last reset."""
        return self.found.update_called

    @property
    def classes(self) -> APScores | None:
        """Table of the classes of the last `compute`."""
        return self.found.result

    def update(
        self, instances: Instances, instance: Tensor, semantic: Tensor, superpoint: Tensor
    ) -> None:
        """Adds a frame or scene.

        Args:
            instances: What was found.
            instance: True instances, (P,); -1 for none.
            semantic: True classes, (P,).
            superpoint: Of each point, counted from the sample's first, (P,).
        """
        truth = instance, semantic
        _add(self.found, instances, *truth)
        if not self._bounds:  # They are the same in every epoch.
            _add(self.ceiling, oracle_instances(*truth, superpoint, self.agnostic), *truth)
            _add(self.floor, self._floor(semantic, superpoint), *truth)

    def compute(self) -> dict[str, float]:
        """Scores in percent by name; those of groups only where classes count."""
        if not self._bounds:
            for kind, metric in (("ceiling", self.ceiling), ("floor", self.floor)):
                scores = _percent(metric)
                self._bounds |= {f"{kind}_{n}": x for n, x in scores.items() if n[:2] == "ap"}
        self.latest = _percent(self.found) | self._bounds
        return self.latest

    def reset(self, bounds: bool = False) -> None:
        """Forgets the samples.

        Args:
            bounds: Forget ceiling and floor too, for they were those of other samples.
        """
        for metric in (self.found, self.ceiling, self.floor):
            metric.reset()
        if bounds:
            self._bounds = {}

    def _floor(self, semantic: Tensor, superpoint: Tensor) -> Instances:
        """A mask for every superpoint, of its true class where classes count: still a low floor."""
        masks = superpoint_instances(superpoint)
        if self.agnostic:
            return masks
        kinds = majority(superpoint, semantic, len(masks.scores), self.num_semantic)
        # Masks come sorted by size: each is found again by its first point.
        kinds = kinds[superpoint[masks.masks.to(torch.uint8).argmax(1)]]
        nothing = torch.tensor([*self.found.stuff, self.num_semantic], device=kinds.device)
        keep = ~torch.isin(kinds, nothing)
        labels = thing_labels(kinds[keep], self.found.stuff)
        return Instances(masks.masks[keep], labels, masks.scores[keep])


def _add(metric: InstanceAP, found: Instances, instance: Tensor, semantic: Tensor) -> None:
    metric.update(found.masks, found.labels, found.scores, instance, semantic)


def _percent(metric: InstanceAP) -> dict[str, float]:
    return {name: 100 * float(value) for name, value in metric.compute().items()}
