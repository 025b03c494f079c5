"""Motion as a BVH file, for Blender and its like.

Places of joints say where bones point, not how they are rolled about themselves: the rotations here
are the shortest ones from a rest pose (swing), and twist is undefined. They are no rotations of
SMPL. Where several bones leave a joint (pelvis, chest), the rotation fits all of them at once.
Bones have their mean length over the clip, so a body of changing bones is met only nearly.
"""

from pathlib import Path

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.files import write_text
from blocks.geometry.motion_rotations import matrix_of, rotation_between, six_dim
from blocks.geometry.motion_skeleton import MotionSkeleton

_CHANNELS = "Zrotation Yrotation Xrotation"
# Passes of finding the shape of a joint's bones and its rotations, each from the other.
_PASSES = 5
# Length of what follows the last joints, as a share of the bone before: BVH wants an end.
_TIP = 0.3


def write_bvh(path: Path, joints: Tensor, skeleton: MotionSkeleton) -> None:
    """Writes a clip.

    Args:
        path: The file, .bvh.
        joints: Places (T, J, 3) in the skeleton's unit, y up; written in metres.
        skeleton: Whose joints they are.

    Raises:
        SuiteError: Joints of another shape.
    """
    if joints.ndim != 3 or joints.shape[1:] != (skeleton.num_joints, 3) or len(joints) == 0:
        raise SuiteError(
            expected=f"joints (T, {skeleton.num_joints}, 3) of {skeleton.name}",
            found=f"shape {tuple(joints.shape)}",
            where=str(path),
            cure="give places of joints, not features",
        )
    offsets, rotations = swing_rotations(joints, skeleton)
    order: list[int] = []
    lines = ["HIERARCHY", *_hierarchy(0, offsets, skeleton, order, 0), "MOTION"]
    lines += [f"Frames: {len(joints)}", f"Frame Time: {1 / skeleton.fps:.7f}"]
    angles = euler_angles(rotations[:, order]).flatten(1)
    root = joints[:, 0].double() / skeleton.metre
    rows = torch.cat((root, angles), 1).tolist()
    lines += [" ".join(f"{value:.6f}" for value in row) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def swing_rotations(joints: Tensor, skeleton: MotionSkeleton) -> tuple[Tensor, Tensor]:
    """Bones at rest and the rotations that bring them where they are.

    Args:
        joints: Places (T, J, 3).
        skeleton: Whose joints they are.

    Returns:
        Offsets from the parent in metres, (J, 3), and rotations relative to the parent's,
        (T, J, 3, 3); the identity where no bone follows. Both float64.
    """
    places = joints.double() / skeleton.metre
    parents = skeleton.parents
    directions = skeleton.directions(places)
    # KIT's table has the right side where the left one is; a rest pose should look to +z.
    directions[:, 0] *= -directions[skeleton.face[0], 0].sign()
    offsets = torch.zeros(skeleton.num_joints, 3, dtype=torch.float64)
    world = torch.eye(3, dtype=torch.float64).expand(*places.shape[:2], 3, 3).clone()
    local = world.clone()
    for joint in range(skeleton.num_joints):  # Parents come before their children.
        turned = world[:, parents[joint]] if joint else torch.eye(3, dtype=torch.float64)
        children = [child for child, parent in enumerate(parents) if parent == joint]
        if not children:
            world[:, joint] = turned
            continue
        bones = places[:, children] - places[:, joint : joint + 1]
        # In the parent's axes, so that the shortest rotation is the joint's own.
        bones = bones @ turned
        rest = directions[children] * bones.norm(dim=-1).mean(0).unsqueeze(-1)
        if len(children) == 1:
            rotation = matrix_of(six_dim(rotation_between(rest, bones))).squeeze(1)
        else:
            rest, rotation = _fitted(rest, bones)
        offsets[children] = rest
        local[:, joint] = rotation
        world[:, joint] = turned @ rotation
    return offsets, local


def euler_angles(rotations: Tensor) -> Tensor:
    """Degrees (..., 3) about z, y and x, in the order in which they stand in a file.

    Args:
        rotations: (..., 3, 3), each equal to Rz Ry Rx.
    """
    r = rotations
    flat = torch.stack((r[..., 0, 0], r[..., 1, 0]), -1).norm(dim=-1)
    locked = flat < 1e-7
    # Where y is at a right angle x and z are one: all of it goes to x.
    x = torch.where(
        locked,
        torch.atan2(-r[..., 1, 2], r[..., 1, 1]),
        torch.atan2(r[..., 2, 1], r[..., 2, 2]),
    )
    y = torch.atan2(-r[..., 2, 0], flat)
    z = torch.where(locked, torch.zeros_like(x), torch.atan2(r[..., 1, 0], r[..., 0, 0]))
    return torch.rad2deg(torch.stack((z, y, x), -1))


def _fitted(rest: Tensor, bones: Tensor) -> tuple[Tensor, Tensor]:
    """Shape (K, 3) of the bones that leave a joint, and the rotations (T, 3, 3) to (T, K, 3)."""
    for _ in range(_PASSES):
        # Kabsch: the rotation with the least squared distance.
        u, _, vh = torch.linalg.svd(bones.mT @ rest)
        sign = torch.det(u @ vh).sign()
        u = torch.cat((u[..., :2], u[..., 2:] * sign.view(-1, 1, 1)), -1)
        rotation = u @ vh
        rest = (bones @ rotation).mean(0)
    return rest, rotation


def _hierarchy(
    joint: int, offsets: Tensor, skeleton: MotionSkeleton, order: list[int], depth: int
) -> list[str]:
    """Lines of a joint and what hangs on it; notes in `order` whose rotations come when."""
    order.append(joint)
    pad = "  " * depth
    kind = "ROOT" if depth == 0 else "JOINT"
    places = "Xposition Yposition Zposition " if depth == 0 else ""
    count = 6 if depth == 0 else 3
    lines = [f"{pad}{kind} {skeleton.joints[joint]}", f"{pad}{{"]
    lines += [f"{pad}  OFFSET {_numbers(offsets[joint])}"]
    lines += [f"{pad}  CHANNELS {count} {places}{_CHANNELS}"]
    children = [child for child, parent in enumerate(skeleton.parents) if parent == joint]
    for child in children:
        lines += _hierarchy(child, offsets, skeleton, order, depth + 1)
    if not children:
        tip = _numbers(_TIP * offsets[joint])
        lines += [f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET {tip}", f"{pad}  }}"]
    return [*lines, f"{pad}}}"]


def _numbers(vector: Tensor) -> str:
    return " ".join(f"{value:.6f}" for value in vector.tolist())
