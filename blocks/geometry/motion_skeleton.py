"""Skeletons of HumanML3D (22 joints of SMPL) and KIT-ML (21 joints of MMM), with their frame rates.

Orders, chains and constants are those of EricGuo5513/HumanML3D. y is up. In HumanML3D the subject's
left is +x when it faces +z.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.errors import SuiteError


@dataclass(frozen=True)
class MotionSkeleton:
    """A body as the motion features see it.

    Args:
        name: `humanml3d` or `kit`.
        joints: Names, in order.
        chains: Paths along which bones follow each other; each joint but the root ends one bone.
        rest: Unit direction of the bone that ends at each joint, (J, 3); zeros at the root.
        left: Joints of the left side, in the order of `right`.
        right: Joints of the right side.
        feet: Ankle and toe of the left foot, then of the right.
        face: Right hip, left hip, right shoulder, left shoulder: across them the body faces.
        legs: Joints that end the two lower legs, by which sizes are compared.
        feet_threshold: A foot touches the ground while its squared step is below this.
        contact_joints: Pelvis, feet, neck and wrists, which may touch a scene.
        fps: Frames in a second.
        metre: How long a metre is in the unit of the joints.
    """

    name: str
    joints: tuple[str, ...]
    chains: tuple[tuple[int, ...], ...]
    rest: tuple[tuple[float, float, float], ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    feet: tuple[int, int, int, int]
    face: tuple[int, int, int, int]
    legs: tuple[int, int]
    feet_threshold: float
    contact_joints: tuple[int, ...]
    fps: float
    metre: float

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.joints)

    @property
    def num_features(self) -> int:
        """D of a frame: 4 of the root, 3 + 6 per other joint, 3 per joint, 4 contacts."""
        return 12 * self.num_joints - 1

    @property
    def parents(self) -> tuple[int, ...]:
        """The joint at the other end of each bone; -1 at the root."""
        before = {chain[i + 1]: chain[i] for chain in self.chains for i in range(len(chain) - 1)}
        return tuple(before.get(joint, -1) for joint in range(self.num_joints))

    @property
    def turned_by(self) -> tuple[int, ...]:
        """Whose rotation each bone's is relative to: the joint before it in its chain.

        Upstream starts every chain from the root's rotation, so arms do not know of the spine.
        """
        before = list(self.parents)
        for chain in self.chains:
            before[chain[1]] = 0
        return tuple(before)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) of every joint but the root."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each joint the one on the other side; itself in the middle."""
        order = list(range(self.num_joints))
        for a, b in zip(self.left, self.right, strict=True):
            order[a], order[b] = b, a
        return tuple(order)

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """First feature and the one after the last of the groups that share one std.

        Turn, step, height, places, rotations, velocities, contacts.
        """
        joints = self.num_joints
        ends = (1, 3, 4, 3 * joints + 1, 9 * joints - 5, 12 * joints - 5, 12 * joints - 1)
        return tuple(zip((0, *ends), ends, strict=False))

    def directions(self, like: Tensor) -> Tensor:
        """`rest` as a tensor (J, 3) of the type and on the device of another one."""
        return torch.tensor(self.rest, dtype=like.dtype, device=like.device)


_X, _Y, _Z, _O = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)
_RIGHT, _DOWN = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)

HUMANML3D = MotionSkeleton(
    name="humanml3d",
    joints=(
        "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2",
        "left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar",
        "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
        "left_wrist", "right_wrist",
    ),
    chains=(
        (0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21),
        (9, 13, 16, 18, 20),
    ),
    rest=(
        _O, _X, _RIGHT, _Y, _DOWN, _DOWN, _Y, _DOWN, _DOWN, _Y, _Z, _Z, _Y, _X, _RIGHT, _Z,
        *[_DOWN] * 6,
    ),
    left=(1, 4, 7, 10, 13, 16, 18, 20),
    right=(2, 5, 8, 11, 14, 17, 19, 21),
    feet=(7, 10, 8, 11),
    face=(2, 1, 17, 16),
    legs=(5, 8),
    feet_threshold=0.002,
    contact_joints=(0, 10, 11, 12, 20, 21),
    fps=20.0,
    metre=1.0,
)  # fmt: skip

KIT = MotionSkeleton(
    name="kit",
    joints=(
        "root", "pelvis_top", "torso", "neck", "head", "right_shoulder", "right_elbow",
        "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "right_hip", "right_knee",
        "right_ankle", "right_foot", "right_toe", "left_hip", "left_knee", "left_ankle",
        "left_foot", "left_toe",
    ),
    chains=(
        (0, 11, 12, 13, 14, 15), (0, 16, 17, 18, 19, 20), (0, 1, 2, 3, 4), (3, 5, 6, 7),
        (3, 8, 9, 10),
    ),
    # Upstream's table points the right side to +x; rotations are relative to it and stay so.
    rest=(
        _O, _Y, _Y, _Y, _Y, _X, _DOWN, _DOWN, _RIGHT, _DOWN, _DOWN, _X, _DOWN, _DOWN, _Z, _Z,
        _RIGHT, _DOWN, _DOWN, _Z, _Z,
    ),
    left=(8, 9, 10, 16, 17, 18, 19, 20),
    right=(5, 6, 7, 11, 12, 13, 14, 15),
    feet=(19, 20, 14, 15),
    face=(11, 16, 5, 8),
    legs=(17, 18),
    feet_threshold=0.05,
    contact_joints=(0, 20, 15, 3, 10, 7),
    fps=12.5,
    # Mean height of the root 559.6 where people carry it at 0.93 m.
    metre=600.0,
)  # fmt: skip

SKELETONS = {skeleton.name: skeleton for skeleton in (HUMANML3D, KIT)}


def skeleton_of(features: int) -> MotionSkeleton:
    """The skeleton whose frames have so many features.

    Args:
        features: 263 or 251.

    Raises:
        SuiteError: Another number.
    """
    for skeleton in SKELETONS.values():
        if skeleton.num_features == features:
            return skeleton
    known = ", ".join(f"{s.num_features} ({s.name})" for s in SKELETONS.values())
    raise SuiteError(
        expected=f"frames of {known} features",
        found=str(features),
        where="motion features",
        cure="give features of HumanML3D or KIT-ML",
    )
