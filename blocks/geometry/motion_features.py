"""Joints to the features of HumanML3D and KIT-ML and back (Guo et al., 2022).

A clip of T frames gives T - 1 rows of D = 12 J - 1 features, measured in the body's own heading:

    turn 1 · step of the root 2 · its height 1 · places 3 (J - 1) · rotations 6 (J - 1)
    · velocities 3 J · contacts of the feet 4

`compat` reproduces EricGuo5513/HumanML3D, which made the published data, with its faults: the two
hips are swapped where the heading is taken, the first heading is overwritten, and a turn across
180 degrees is stored wrongly, so that all later frames of a recovered clip are turned. `repaired`
has none of these; its heading at the first frame is +z. The two must not be mixed.

Axes: T frames, J joints, D features.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.motion_rotations import (
    conjugate,
    matrix_of,
    product,
    rotate,
    rotation_between,
    six_dim,
    turned,
)
from blocks.geometry.motion_skeleton import MotionSkeleton

Mode = Literal["compat", "repaired"]
_SMOOTHING, _REACH = 20.0, 80  # Frames: sigma of the heading's filter, and where it ends.
_WRAPPED = 0.01  # Radians; sound rows agree within 3e-7.


def extract_features(
    joints: Tensor,
    skeleton: MotionSkeleton,
    target_offsets: Tensor | None = None,
    mode: Mode = "repaired",
) -> Tensor:
    """Features of a clip.

    Args:
        joints: Places (..., T, J, 3), at least two frames, y up, at the skeleton's frame rate.
        skeleton: Whose joints they are.
        target_offsets: Bones (J, 3) that the clip is fitted to first; null keeps its own.
        mode: See the head of the file.

    Returns:
        (..., T - 1, D), in the type of `joints`.

    Raises:
        SuiteError: Joints of another shape.
    """
    kind = joints.dtype  # Turns add up over a clip.
    joints = canonical_joints(joints.double(), skeleton, target_offsets, mode)
    heading = _headings(joints, skeleton, mode)
    if mode == "compat":
        heading[..., 0, :] = heading.new_tensor((1.0, 0.0, 0.0, 0.0))
    turn = product(heading[..., 1:, :], conjugate(heading[..., :-1, :]))
    if mode == "compat":
        half_turn = turn[..., 2].arcsin()
    else:
        half_turn = torch.atan2(turn[..., 2] * turn[..., 0].sign(), turn[..., 0].abs())
    root = joints[..., 0, :]
    step = rotate(heading[..., 1:, :], root.diff(dim=-2))
    ground = root * root.new_tensor((1.0, 0.0, 1.0))
    places = rotate(heading.unsqueeze(-2), joints - ground.unsqueeze(-2))
    velocity = joints.diff(dim=-3)
    touches = velocity[..., list(skeleton.feet), :].square().sum(-1) < skeleton.feet_threshold
    rotations = six_dim(_local_rotations(joints, heading, skeleton, guard=mode == "repaired"))
    parts = (
        half_turn.unsqueeze(-1),
        step[..., [0, 2]],
        root[..., :-1, 1:2],
        places[..., :-1, 1:, :].flatten(-2),
        rotations[..., :-1, 1:, :].flatten(-2),
        rotate(heading[..., :-1, None, :], velocity).flatten(-2),
        touches.to(joints.dtype),
    )
    return torch.cat(parts, -1).to(kind)


def canonical_joints(
    joints: Tensor,
    skeleton: MotionSkeleton,
    target_offsets: Tensor | None = None,
    mode: Mode = "repaired",
) -> Tensor:
    """The clip as its features see it: fitted, on the floor, from the origin towards +z.

    In `repaired` mode these are the joints that `recover_joints` gives back.

    Args:
        joints: Places (..., T, J, 3).
        skeleton: Whose joints they are.
        target_offsets: Bones (J, 3) to fit to, or null.
        mode: `compat` turns by the heading of frame 0; `repaired` by the smoothed heading, which is
            the one that features are measured in.
    """
    _check(joints, skeleton)
    # A facing that is hard to tell turns, in single precision, by a third of a millimetre.
    kind, joints = joints.dtype, joints.double()
    if target_offsets is not None:
        joints = fitted(joints, skeleton, target_offsets.to(joints), guard=mode == "repaired")
    start = joints[..., :1, 0, :].clone()
    start[..., 1] = joints[..., 1].flatten(-2).amin(-1, keepdim=True)
    joints = joints - start.unsqueeze(-2)
    if mode == "compat":
        forward = _across(joints[..., :1, :, :], skeleton.face)
        turn = rotation_between(forward, _forward(forward), guard=False)
    else:
        turn = _headings(joints, skeleton, mode)[..., :1, :]
    return rotate(turn.unsqueeze(-2), joints).to(kind)


def fitted(
    joints: Tensor, skeleton: MotionSkeleton, target_offsets: Tensor, guard: bool = True
) -> Tensor:
    """The clip on a body with other bones, which keeps the bones' directions.

    Paths are scaled by the length of the legs, so that steps stay in proportion.

    Args:
        joints: Places (..., T, J, 3).
        skeleton: Whose joints they are.
        target_offsets: Bones of the other body at rest, (J, 3).
        guard: See `rotation_between`.
    """
    legs, parents = list(skeleton.legs), torch.tensor(skeleton.parents)
    first = joints[..., 0, :, :]
    source = (first[..., legs, :] - first[..., parents[legs], :]).norm(dim=-1)
    # The largest component, as upstream; these bones lie along an axis.
    scale = target_offsets[legs].abs().amax(-1).sum() / source.sum(-1)
    bones = rotate(_bone_rotations(joints, skeleton, guard), target_offsets)
    places = [joints[..., 0, :] * scale[..., None, None]] * skeleton.num_joints
    for chain in skeleton.chains:
        for before, joint in zip(chain, chain[1:], strict=False):
            places[joint] = places[before] + bones[..., joint, :]
    return torch.stack(places, -2)


def target_offsets(joints: Tensor, skeleton: MotionSkeleton) -> Tensor:
    """Bones (J, 3) at rest of the body in a frame (J, 3), to fit other clips to."""
    parents = torch.tensor(skeleton.parents).clamp_min(0)
    length = (joints - joints[parents]).norm(dim=-1, keepdim=True)
    offsets: Tensor = skeleton.directions(joints) * length
    return offsets


def recover_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """Heading and place of the root.

    Args:
        features: (..., T, D), not normalised.

    Returns:
        Angle (..., T) by which the heading is turned from +z to +x, radians; place (..., T, 3).
    """
    half = F.pad(features[..., :-1, 0].cumsum(-1), (1, 0))
    angle = -2 * half
    step = F.pad(features[..., :-1, 1:3], (0, 0, 1, 0))
    step = turned(torch.stack((step[..., 0], 0 * half, step[..., 1]), -1), angle)
    place = step.cumsum(-2)
    return angle, torch.stack((place[..., 0], features[..., 3], place[..., 2]), -1)


def recover_joints(features: Tensor, skeleton: MotionSkeleton) -> Tensor:
    """Places of the joints from the features of the root and of places (`recover_from_ric`).

    Args:
        features: (..., T, D), not normalised.
        skeleton: Whose features they are.

    Returns:
        (..., T, J, 3); the first frame stands at the origin and faces +z.
    """
    kind, features = features.dtype, features.double()
    angle, root = recover_root(features)
    places = _triples(features, 4, skeleton.num_joints - 1)
    places = turned(places, angle.unsqueeze(-1))
    ground = root * root.new_tensor((1.0, 0.0, 1.0))
    return torch.cat((root.unsqueeze(-2), places + ground.unsqueeze(-2)), -2).to(kind)


def recover_from_rotations(
    features: Tensor, skeleton: MotionSkeleton, target_offsets: Tensor
) -> Tensor:
    """Places of the joints from the features of the root and of rotations.

    The rotations swing bones and say nothing of twist: they are not those of SMPL.

    Args:
        features: (..., T, D), not normalised.
        skeleton: Whose features they are.
        target_offsets: Bones at rest, (J, 3).

    Returns:
        (..., T, J, 3).
    """
    angle, root = recover_root(features)
    start = 3 * skeleton.num_joints + 1
    six = features[..., start : start + 6 * (skeleton.num_joints - 1)]
    local = matrix_of(six.reshape(*six.shape[:-1], -1, 6))
    axes = torch.eye(3, dtype=features.dtype, device=features.device)
    # The root's rotation leads from its heading to +z.
    turn = turned(axes.expand(*angle.shape, 3, 3), -angle.unsqueeze(-1)).mT
    world, place = {0: turn}, {0: root}
    for chain in skeleton.chains:
        rotation = turn
        for before, joint in zip(chain, chain[1:], strict=False):
            rotation = world[joint] = rotation @ local[..., joint - 1, :, :]
            place[joint] = place[before] + rotation @ target_offsets[joint].to(features)
    return torch.stack([place[joint] for joint in range(skeleton.num_joints)], -2)


def mirror(joints: Tensor, skeleton: MotionSkeleton) -> Tensor:
    """The clip (..., J, 3) as a mirror shows it: x turned round, left and right exchanged."""
    flip = joints.new_tensor((-1.0, 1.0, 1.0))
    return joints[..., list(skeleton.mirrored), :] * flip


def wrapped_frames(features: Tensor, skeleton: MotionSkeleton) -> Tensor:
    """Rows whose turn is stored wrongly, a fault of the published extraction.

    Places and velocities tell the true turn from one row to the next, whatever the first feature
    says; the last row has no next one and passes.

    Args:
        features: (..., T, D), not normalised.
        skeleton: Whose features they are.

    Returns:
        (..., T) bool.
    """
    difference = features[..., :-1, 0] * 2 - _turns(features, skeleton)
    wrapped = torch.atan2(difference.sin(), difference.cos()).abs() > _WRAPPED
    return F.pad(wrapped, (0, 1))


def repair_heading(features: Tensor, skeleton: MotionSkeleton) -> Tensor:
    """Features with the turns of `wrapped_frames` put right; all other numbers are sound.

    Args:
        features: (..., T, D), not normalised.
        skeleton: Whose features they are.
    """
    wrapped = wrapped_frames(features, skeleton)
    true = F.pad(_turns(features, skeleton) / 2, (0, 1))
    repaired = features.clone()
    repaired[..., 0] = torch.where(wrapped, true, features[..., 0])
    return repaired


def _turns(features: Tensor, skeleton: MotionSkeleton) -> Tensor:
    """Turn (..., T - 1) from each row to the next that fits the places best, radians."""
    joints = skeleton.num_joints
    places = _triples(features, 4, joints - 1)
    velocity = _triples(features, 9 * joints - 5, joints)
    a = (places + velocity[..., 1:, :] - velocity[..., :1, :])[..., :-1, :, :]
    b = places[..., 1:, :, :]
    cross = (a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]).sum(-1)
    dot = (a[..., 0] * b[..., 0] + a[..., 2] * b[..., 2]).sum(-1)
    return torch.atan2(cross, dot)


def _triples(features: Tensor, start: int, count: int) -> Tensor:
    """Features from `start` on as so many vectors, (..., count, 3)."""
    part = features[..., start : start + 3 * count]
    return part.reshape(*part.shape[:-1], count, 3)


def _headings(joints: Tensor, skeleton: MotionSkeleton, mode: Mode) -> Tensor:
    """Rotation (..., T, 4) from the smoothed heading of each frame to +z."""
    face = skeleton.face
    if mode == "compat":
        # Upstream takes the hips in the other order here: they pull against the shoulders.
        face = (face[1], face[0], face[2], face[3])
    forward = _across(joints, face)
    if mode == "repaired":
        forward = forward.nan_to_num()  # Somebody lying on the side faces nowhere for a while.
    forward = _smoothed(forward)
    if mode == "repaired":
        lost = forward.norm(dim=-1, keepdim=True) < 1e-6
        forward = torch.where(lost, _forward(forward), forward)
    return rotation_between(forward, _forward(forward), guard=mode == "repaired")


def _across(joints: Tensor, face: tuple[int, int, int, int]) -> Tensor:
    """Direction (..., T, 3), in the ground plane, that hips and shoulders face; 1 long upright."""
    right_hip, left_hip, right_shoulder, left_shoulder = face
    across = joints[..., right_hip, :] - joints[..., left_hip, :]
    across = across + joints[..., right_shoulder, :] - joints[..., left_shoulder, :]
    x, y, z = (across / across.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack((z, torch.zeros_like(y), -x), -1)


def _smoothed(x: Tensor) -> Tensor:
    """Gaussian filter over the frames of (..., T, C), ends repeated (scipy's gaussian_filter1d)."""
    place = torch.arange(-_REACH, _REACH + 1, dtype=x.dtype, device=x.device)
    kernel = (-0.5 * (place / _SMOOTHING).square()).exp()
    series = x.mT.reshape(-1, 1, x.shape[-2])
    padded = F.pad(series, (_REACH, _REACH), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum()).view(1, 1, -1)).view(x.mT.shape).mT


def _bone_rotations(joints: Tensor, skeleton: MotionSkeleton, guard: bool) -> Tensor:
    """Rotation (..., T, J, 4) of each bone from its direction at rest; none at the root."""
    parents = torch.tensor(skeleton.parents).clamp_min(0)
    bones = (joints - joints[..., parents, :])[..., 1:, :]
    bones = bones / bones.norm(dim=-1, keepdim=True)
    rotation = rotation_between(skeleton.directions(joints)[1:], bones, guard)
    still = rotation.new_tensor((1.0, 0.0, 0.0, 0.0)).expand(*joints.shape[:-2], 1, 4)
    return torch.cat((still, rotation), -2)


def _local_rotations(
    joints: Tensor, heading: Tensor, skeleton: MotionSkeleton, guard: bool
) -> Tensor:
    """Rotation (..., T, J, 4) of each bone relative to the one before it in its chain."""
    world = _bone_rotations(joints, skeleton, guard)
    world[..., 0, :] = heading
    before = torch.tensor(skeleton.turned_by).clamp_min(0)
    return product(conjugate(world[..., before, :]), world)


def _forward(like: Tensor) -> Tensor:
    return like.new_tensor((0.0, 0.0, 1.0)).expand_as(like)


def _check(joints: Tensor, skeleton: MotionSkeleton) -> None:
    shape = (skeleton.num_joints, 3)
    if joints.ndim < 3 or joints.shape[-2:] != shape or joints.shape[-3] < 2:
        raise SuiteError(
            expected=f"joints (T, {skeleton.num_joints}, 3) of {skeleton.name}, two frames or more",
            found=f"shape {tuple(joints.shape)}",
            where="motion features",
            cure="bring the joints into the order of this skeleton",
        )
