"""Skeletons on matplotlib's 3-D axes: left and right in two colours, equal scales."""

from typing import Any

import numpy as np

from blocks.geometry.skeleton import Skeleton
from lightning_modules.pose.pose_clip import Array, displayed

# Of bones that lead to a joint of the left, of the right, and of the middle.
LEFT, RIGHT, MIDDLE = "#1f6fb4", "#d1495b", "#4a4a4a"
_VIEW = {"elev": 12, "azim": -70}


def bone_colours(skeleton: Skeleton) -> list[str]:
    """A colour for each bone."""
    side = dict.fromkeys(skeleton.left, LEFT) | dict.fromkeys(skeleton.right, RIGHT)
    return [side.get(child, MIDDLE) for _, child in skeleton.bones]


def bounds(*poses: Array | None) -> tuple[Array, float]:
    """Centre (3,) and half edge of the cube, in display axes, that holds all poses (N, J, 3)."""
    points = np.concatenate([displayed(p).reshape(-1, 3) for p in poses if p is not None])
    low, high = points.min(0), points.max(0)
    half = float((high - low).max()) / 2
    return (low + high) / 2, 1.05 * (half or 1.0)


class SkeletonAxes:
    """One skeleton that can be moved.

    Args:
        axes: Of a 3-D projection.
        skeleton: Joints and bones.
        centre: Of the visible cube, display axes, (3,).
        half: Half of its edge.
    """

    def __init__(self, axes: Any, skeleton: Skeleton, centre: Array, half: float) -> None:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

        self.bones = np.array(skeleton.bones)
        still = np.zeros((len(self.bones), 2, 3))
        self.lines = Line3DCollection(still, colors=bone_colours(skeleton), linewidths=2.5)
        self.lines.set_capstyle("round")
        axes.add_collection3d(self.lines)
        low, high = centre - half, centre + half
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        axes.set_box_aspect((1, 1, 1), zoom=1.15)
        axes.view_init(**_VIEW)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_ticklabels([])
            axis.line.set_color((0, 0, 0, 0))
            axis.set_pane_color((0.97, 0.97, 0.97, 1.0))
            # There is no public way to a grid of another colour.
            axis._axinfo["grid"] |= {"color": "#e0e0e0", "linewidth": 0.6}
            axis.set_tick_params(color=(0, 0, 0, 0))

    def show(self, pose: Array) -> None:
        """Moves to a pose (J, 3) in camera axes."""
        self.lines.set_segments(displayed(pose)[self.bones])
