"""Is a motion possible? Figures that need no evaluator: sliding feet, jitter, depth, floating.

After PhysDiff (Yuan et al., 2023), on joints instead of meshes. Truth has small values, not zeros:
read them beside it. Jumping counts as floating, for no figure can tell.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.motion_skeleton import MotionSkeleton

# Metres. A foot below the first height is meant to stand; joints are inside the body, so that they
# rest above the floor; a body counts as floating when its lowest joint is above the second.
STANDING, FLOATING = 0.05, 0.05


@dataclass(frozen=True)
class PhysicalReport:
    """Figures of a clip, or their means over clips.

    Args:
        foot_sliding: Mean speed over the ground of toes that are lower than 5 cm, m/s; NaN where
            none ever is.
        jitter: Mean size of the third derivative of the joints' places, m/s³.
        penetration: Mean depth of the lowest joint below the floor, mm.
        floating: Mean height of the lowest joint above 5 cm, mm.
    """

    foot_sliding: float
    jitter: float
    penetration: float
    floating: float

    def as_texts(self) -> dict[str, str]:
        """Names with units, and rounded figures, for people."""
        values: Mapping[str, float] = asdict(self)
        return {f"{n.replace('_', ' ')}, {UNITS[n]}": f"{v:.3g}" for n, v in values.items()}

    @classmethod
    def mean(cls, reports: list[Self]) -> Self:
        """Mean of each figure over the clips that have it."""
        columns = [[getattr(r, field.name) for r in reports] for field in fields(cls)]
        return cls(*torch.tensor(columns, dtype=torch.float64).nanmean(1).tolist())


UNITS = {"foot_sliding": "m/s", "jitter": "m/s³", "penetration": "mm", "floating": "mm"}


def physical_report(joints: Tensor, skeleton: MotionSkeleton, floor: float = 0.0) -> PhysicalReport:
    """Measures a clip.

    Args:
        joints: Places (T, J, 3) in the skeleton's unit, y up, at least 4 frames.
        skeleton: Whose joints they are.
        floor: Height of the floor in that unit; features of HumanML3D put it at 0.

    Raises:
        SuiteError: The clip is too short for a third derivative.
    """
    if len(joints) < 4:
        raise SuiteError(
            expected="at least 4 frames",
            found=f"{len(joints)}",
            where="physical report",
            cure="ask for a longer motion",
        )
    metres = joints.double() / skeleton.metre
    metres = metres - metres.new_tensor((0.0, floor / skeleton.metre, 0.0))
    toes = metres[:, [skeleton.feet[1], skeleton.feet[3]]]
    low = torch.maximum(toes[:-1, :, 1], toes[1:, :, 1]) < STANDING
    speed = toes[..., [0, 2]].diff(dim=0).norm(dim=-1) * skeleton.fps
    lowest = metres[..., 1].amin(-1)
    return PhysicalReport(
        foot_sliding=float(speed[low].mean()),
        jitter=float(metres.diff(n=3, dim=0).norm(dim=-1).mean()) * skeleton.fps**3,
        penetration=float((-lowest).clamp(min=0).mean()) * 1000,
        floating=float((lowest - FLOATING).clamp(min=0).mean()) * 1000,
    )
