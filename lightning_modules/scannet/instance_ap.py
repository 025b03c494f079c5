"""ScanNet's average precision as a metric, exact on any number of processes.

Every sample is reduced to counts at once; processes exchange these, never masks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_modules.scannet.average_precision import (
    MIN_POINTS,
    THRESHOLDS,
    APScores,
    Array,
    Matches,
    average_precision,
    match,
)
from lightning_modules.scannet.targets import STUFF, thing_instances, thing_labels

_STATES = ("counts", "masks", "scores", "pairs", "truths")


class InstanceAP(Metric):
    """Average precision over samples: frames or scenes, one at a time.

    `compute` gives ap, ap50 and ap25, and where `groups` are known and classes count also
    `<group>`, `<group>50` and `<group>25` of each. The table of classes is in `result` afterwards.

    Args:
        agnostic: Take all instances and all masks for one class.
        num_classes: Classes that have instances; 198 of ScanNet200.
        num_semantic: Classes of points; this number itself is what is ignored.
        stuff: Those without instances: their points are void.
        groups: Labels 0..num_classes - 1 by group; see `thing_groups`.
        min_points: Smaller masks and instances do not count.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(
        self,
        agnostic: bool,
        num_classes: int = 198,
        num_semantic: int = 200,
        stuff: Sequence[int] = STUFF,
        groups: Mapping[str, Sequence[int]] | None = None,
        min_points: int = MIN_POINTS,
    ) -> None:
        super().__init__()
        self.agnostic, self.num_classes = agnostic, 1 if agnostic else num_classes
        self.num_semantic, self.stuff = num_semantic, tuple(stuff)
        self.groups = dict(groups or {})
        self.min_points = min_points
        self.result: APScores | None = None
        for name in _STATES:
            self.add_state(name, [], dist_reduce_fx="cat")

    @property
    def protocol(self) -> dict[str, str | int | bool | list[float]]:
        """How it is computed, for files of results."""
        return {
            "metric": "ScanNet average precision, overlap strictly above the threshold",
            "agnostic": self.agnostic,
            "classes": self.num_classes,
            "min_points": self.min_points,
            "thresholds": [round(float(t), 2) for t in THRESHOLDS[:-1]],
        }

    def update(
        self, masks: Tensor, labels: Tensor, scores: Tensor, instance: Tensor, semantic: Tensor
    ) -> None:
        """Adds one sample.

        Args:
            masks: (M, P) bool.
            labels: (M,) class of each, 0..num_classes - 1; without meaning if agnostic.
            scores: (M,) confidence.
            instance: (P,) truth: instance of each point, -1 for none.
            semantic: (P,) truth: class of each point, 0..num_semantic.
        """
        numbers = thing_instances(instance, semantic, self.num_semantic, self.stuff)
        things = thing_labels(semantic, self.stuff)
        if self.agnostic:
            labels, things = torch.zeros_like(labels), torch.zeros_like(things)
        found = match(
            masks.cpu().numpy(),
            labels.cpu().numpy(),
            scores.detach().float().cpu().numpy(),
            numbers.cpu().numpy(),
            things.cpu().numpy(),
            self.min_points,
        )
        columns = (found.labels, found.sizes, found.void)
        truths = (found.truth_labels, found.truth_sizes)
        lengths = (len(found.labels), len(found.truth_labels), len(found.pairs))
        self._add("counts", np.array([lengths]))
        self._add("masks", np.stack(columns, 1))
        self._add("scores", found.scores)
        self._add("pairs", found.pairs)
        self._add("truths", np.stack(truths, 1))

    def compute(self) -> dict[str, Tensor]:
        """Scores by name, in 0..1; NaN where no class has an instance."""
        self.result = average_precision([self._joined()], self.num_classes, self.min_points)
        values = self.result.summary()
        if not self.agnostic:
            for group, classes in self.groups.items():
                part = self.result.summary(classes)
                values |= {group + name.removeprefix("ap"): x for name, x in part.items()}
        return {name: torch.tensor(value, device=self.device) for name, value in values.items()}

    def _add(self, name: str, values: Array) -> None:
        getattr(self, name).append(torch.from_numpy(values).to(self.device))

    def _joined(self) -> Matches:
        """All samples of all processes as one record."""
        if not len(self.counts):  # type: ignore[arg-type]
            nothing = np.zeros((0, 3), dtype=np.int64)
            columns = nothing[:, 0]
            return Matches(columns, np.zeros(0), columns, columns, nothing, columns, columns)
        got = {name: dim_zero_cat(getattr(self, name)).cpu().numpy() for name in _STATES}
        counts = got["counts"]
        before = np.cumsum(counts, 0) - counts
        before[:, 2] = 0
        pairs = got["pairs"] + np.repeat(before, counts[:, 2], 0)
        return Matches(*_columns(got["masks"], got["scores"]), pairs, *got["truths"].T)


def thing_groups(
    class_groups: Sequence[str], stuff: Sequence[int] = STUFF
) -> dict[str, tuple[int, ...]]:
    """Labels of things by group, from the group of each semantic class.

    Args:
        class_groups: head, common or tail of each semantic class, such as `info["class_groups"]`.
        stuff: Classes without instances.
    """
    names = [group for place, group in enumerate(class_groups) if place not in stuff]
    return {
        name: tuple(label for label, group in enumerate(names) if group == name)
        for name in dict.fromkeys(names)
    }


def _columns(masks: Array, scores: Array) -> tuple[Array, Array, Array, Array]:
    labels, sizes, void = masks.T
    return labels, scores, sizes, void
