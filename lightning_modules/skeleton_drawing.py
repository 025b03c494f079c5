"""Skeletons on matplotlib's 3-D axes: left and right in two colours, equal scales, a floor."""

from typing import Any

import numpy as np

from blocks.geometry.skeleton import Skeleton
from lightning_modules.skeleton_clip import Array

# Of bones that lead to a joint of the left, of the right, and of the middle; and of the trace.
LEFT, RIGHT, MIDDLE = "#1f6fb4", "#d1495b", "#4a4a4a"
_TRACE = "#e8a33d"
_VIEW = {"elev": 12, "azim": -70}


def bone_colours(skeleton: Skeleton) -> list[str]:
    """A colour for each bone."""
    side = dict.fromkeys(skeleton.left, LEFT) | dict.fromkeys(skeleton.right, RIGHT)
    return [side.get(child, MIDDLE) for _, child in skeleton.bones]


class SkeletonAxes:
    """One skeleton that can be moved.

    Args:
        axes: Of a 3-D projection.
        skeleton: Joints and bones.
        centre: Of the visible cube, display axes, (3,).
        half: Half of its edge.
        floor: Height of the floor, where the cube then ends; None where there is none.
    """

    def __init__(
        self,
        axes: Any,
        skeleton: Skeleton,
        centre: Array,
        half: float,
        floor: float | None = None,
    ) -> None:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

        self.axes, self.skeleton, self.half, self.floor = axes, skeleton, half, floor
        self.bones = np.array(skeleton.bones)
        still = np.zeros((len(self.bones), 2, 3))
        self.lines = Line3DCollection(still, colors=bone_colours(skeleton), linewidths=2.5)
        self.lines.set_capstyle("round")
        axes.add_collection3d(self.lines)
        (self.trace,) = axes.plot([], [], [], color=_TRACE, linewidth=1.5)
        low, high = (centre[2] - half, centre[2] + half)
        if floor is not None:
            low, high = floor, floor + 2 * half
        axes.set(zlim=(low, high))
        self.look_at(centre)
        axes.set_box_aspect((1, 1, 1), zoom=1.15)
        axes.view_init(**_VIEW)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_ticklabels([])
            axis.line.set_color((0, 0, 0, 0))
            axis.set_pane_color((0.97, 0.97, 0.97, 1.0))
            # There is no public way to a grid of another colour.
            axis._axinfo["grid"] |= {"color": "#e0e0e0", "linewidth": 0.6}
            axis.set_tick_params(color=(0, 0, 0, 0))

    def look_at(self, centre: Array) -> None:
        """Moves the visible cube sideways to a point (3,); its height stays."""
        self.centre = centre
        low, high = centre - self.half, centre + self.half
        self.axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))

    def show(self, joints: Array) -> None:
        """Moves to joints (J, 3) in display axes."""
        self.lines.set_segments(joints[self.bones])

    def show_path(self, path: Array) -> None:
        """Draws where the root has been, (N, 3), onto the floor if there is one."""
        height = path[:, 2] if self.floor is None else np.full(len(path), self.floor)
        # matplotlib would draw beyond the cube.
        inside = (np.abs(path - self.centre)[:, :2] <= self.half).all(1)
        x, y, z = (np.where(inside, column, np.nan) for column in (*path.T[:2], height))
        self.trace.set_data_3d(x, y, z)
