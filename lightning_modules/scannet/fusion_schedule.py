"""What changes while BiFusion trains: trust in the gate, and the weights of the losses.

After Xin200203/3D_Reconstruction, where both were written but never called.
"""

from dataclasses import dataclass

# Shares of sem, inst, clip, aux up to each progress, 0..1.
_STAGES = (
    (0.3, {"sem": 0.3, "inst": 0.4, "clip": 0.2, "aux": 0.1}),
    (0.7, {"sem": 0.4, "inst": 0.5, "clip": 0.08, "aux": 0.02}),
    (1.0, {"sem": 0.45, "inst": 0.5, "clip": 0.04, "aux": 0.01}),
)
# Of the losses by name, which of the groups above.
GROUPS = {
    "loss_sem": "sem",
    "loss_cls": "inst",
    "loss_mask": "inst",
    "loss_clip": "clip",
    "loss_aux": "aux",
}


@dataclass(frozen=True)
class StageWeights:
    """Weights of the groups of losses in three stages: to 30 %, to 70 %, to the end.

    Args:
        enabled: Whether they apply; else every weight is 1.
        normalize: Divide by the middle stage's, so that it equals training without stages.
    """

    enabled: bool = False
    normalize: bool = True

    def stage(self, progress: float) -> int:
        """0, 1 or 2, of a progress in 0..1."""
        return sum(progress >= end for end, _ in _STAGES[:-1])

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss by name."""
        if not self.enabled:
            return dict.fromkeys(GROUPS, 1.0)
        now, middle = _STAGES[self.stage(progress)][1], _STAGES[1][1]
        return {
            name: now[group] / (middle[group] if self.normalize else 1.0)
            for name, group in GROUPS.items()
        }


def gate_warmup(total_steps: int) -> int:
    """Steps in which both branches count evenly: 10 % of all, at most 3000."""
    return min(3000, total_steps // 10)
