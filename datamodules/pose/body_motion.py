"""People who move, made by formulas: forward kinematics of Human3.6M's skeleton in 15 actions.

World axes: x to the person's right, y forward, z up, right-handed; millimetres, radians, 50 frames
a second. Bone lengths are those of an adult; a subject is a scale. Each joint turns by a constant
and four slow sinusoids; walking adds its cycle and a circular path. It is not motion capture: it is
enough that time tells more about depth than one frame does.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blocks.geometry.skeleton import H36M
from datamodules.pose.h36m_names import ACTIONS, FPS, Recording

Array = npt.NDArray[np.float64]

# From the parent, in rest.
_OFFSETS = np.array(
    [
        (0, 0, 0), (132, 0, 0), (0, 0, -442), (0, 0, -454), (-132, 0, 0), (0, 0, -442),
        (0, 0, -454), (0, 0, 233), (0, 0, 257), (0, 20, 121), (0, 0, 115), (-151, 0, -10),
        (0, 0, -279), (0, 0, -252), (151, 0, -10), (0, 0, -279), (0, 0, -252),
    ],
    dtype=np.float64,
)  # fmt: skip
_SCALES = {1: 1.00, 5: 0.97, 6: 1.03, 7: 0.95, 8: 1.05, 9: 1.02, 11: 0.96}
_SITTING_HEIGHT = 420.0
# Room for wandering, from the middle.
_ROOM = 500.0
_SLOWEST_HZ = 0.05

_R_HIP, _R_KNEE, _L_HIP, _L_KNEE = 1, 2, 4, 5
_SPINE, _THORAX, _NECK = 7, 8, 9
_L_SHOULDER, _L_ELBOW, _R_SHOULDER, _R_ELBOW = 11, 12, 14, 15
_FORWARD, _SIDE, _TWIST = 0, 1, 2  # About x, y and z.


@dataclass(frozen=True)
class Style:
    """How an action looks; angles in radians.

    Args:
        walks: Whether it goes in circles.
        hip: Flexion of the hips; above 1 the person sits.
        knee: Flexion of the knees.
        lean: Of the trunk, forward.
        shoulders: Flexion of the right and the left.
        elbows: Flexion of the right and the left.
        arms: How far the arms swing about that.
        trunk: How far the trunk does.
        turn: How far the person turns on the spot.
        fastest: Highest frequency of swinging, Hz.
    """

    walks: bool = False
    hip: float = 0.05
    knee: float = 0.1
    lean: float = 0.05
    shoulders: tuple[float, float] = (0.15, 0.15)
    elbows: tuple[float, float] = (0.5, 0.5)
    arms: float = 0.35
    trunk: float = 0.12
    turn: float = 0.5
    fastest: float = 0.6


STYLES: dict[str, Style] = {
    "Directions": Style(shoulders=(0.9, 0.5), arms=0.8, turn=0.9, fastest=0.8),
    "Discussion": Style(shoulders=(0.5, 0.5), elbows=(1.2, 1.2), arms=0.5, fastest=0.9),
    "Eating": Style(hip=1.45, knee=1.45, shoulders=(0.6, 0.3), elbows=(1.7, 1.2), arms=0.4),
    "Greeting": Style(shoulders=(1.2, 0.4), elbows=(0.9, 0.6), arms=0.9, fastest=1.0),
    "Phoning": Style(shoulders=(0.7, 0.2), elbows=(2.1, 0.5), arms=0.25, turn=0.9),
    "Posing": Style(hip=0.15, shoulders=(0.4, 0.4), elbows=(0.9, 0.9), arms=0.7, trunk=0.25),
    "Purchases": Style(hip=0.6, knee=0.7, lean=0.7, shoulders=(0.9, 0.9), arms=0.6, trunk=0.35),
    "Sitting": Style(hip=1.45, knee=1.45, lean=0.1, shoulders=(0.5, 0.5), elbows=(0.9, 0.9)),
    "SittingDown": Style(hip=2.0, knee=2.2, lean=0.35, shoulders=(0.7, 0.7), trunk=0.25),
    "Smoking": Style(hip=0.3, knee=0.4, shoulders=(0.8, 0.2), elbows=(2.0, 0.6), arms=0.4),
    "Photo": Style(lean=0.1, shoulders=(1.0, 1.0), elbows=(1.9, 1.9), arms=0.25),
    "Waiting": Style(shoulders=(0.1, 0.1), elbows=(0.7, 0.7), arms=0.4, trunk=0.15, turn=0.8),
    "Walking": Style(walks=True, arms=0.15, trunk=0.06),
    "WalkDog": Style(walks=True, shoulders=(0.5, 0.15), elbows=(0.8, 0.4), arms=0.3, lean=0.15),
    "WalkTogether": Style(walks=True, shoulders=(0.2, 0.2), arms=0.3, trunk=0.1),
}


def body_motion(recording: Recording, frames: int) -> Array:
    """Joints in the world, (frames, 17, 3), millimetres; the same for all cameras.

    Args:
        recording: Subject, action and sub-action decide everything.
        frames: How many.
    """
    random = np.random.RandomState(
        1000 * recording.subject + 10 * recording.action + recording.subaction
    )
    style = STYLES[ACTIONS[recording.action - 2]]
    angles = np.zeros((frames, 17, 3))
    _hold(angles, style, random)
    _swing(angles, style, random)
    place = _walk(angles, random) if style.walks else _stand(angles, style, random)
    joints = forward_kinematics(angles, _SCALES[recording.subject])
    joints[..., :2] += place[:, None]
    ground = joints[..., 2].min(1)
    # Seated people keep their seat; all others stand on their lowest joint.
    lift = _SITTING_HEIGHT * random.uniform(0.9, 1.1) if style.hip > 1 else -ground
    joints[..., 2] += np.broadcast_to(np.maximum(lift, -ground), frames)[:, None]
    return joints


def forward_kinematics(angles: Array, scale: float = 1.0) -> Array:
    """Joints (F, 17, 3) of a body whose joints turn by Euler angles (F, 17, 3); the root at 0.

    Args:
        angles: About x, y and z, applied in the order x, y, z, each joint relative to its parent.
        scale: Of all bones.
    """
    rotations = _rotations(angles)
    joints = np.zeros(angles.shape)
    for joint, parent in enumerate(H36M.parents):
        if parent >= 0:
            joints[:, joint] = joints[:, parent] + rotations[:, parent] @ (scale * _OFFSETS[joint])
            rotations[:, joint] = rotations[:, parent] @ rotations[:, joint]
    return joints


def _hold(angles: Array, style: Style, random: np.random.RandomState) -> None:
    """The posture about which the action moves, a little different in each take."""
    for side, hip, knee, shoulder, elbow in (
        (0, _R_HIP, _R_KNEE, _R_SHOULDER, _R_ELBOW),
        (1, _L_HIP, _L_KNEE, _L_SHOULDER, _L_ELBOW),
    ):
        out = -1 if side == 0 else 1
        angles[:, hip, _FORWARD] += style.hip + random.normal(0, 0.08)
        angles[:, hip, _SIDE] += out * abs(random.normal(0.08, 0.06))
        angles[:, knee, _FORWARD] -= style.knee + abs(random.normal(0, 0.08))
        angles[:, shoulder, _FORWARD] += style.shoulders[side] + random.normal(0, 0.12)
        angles[:, shoulder, _SIDE] += out * abs(random.normal(0.15, 0.12))
        angles[:, elbow, _FORWARD] += style.elbows[side] + random.normal(0, 0.12)
    angles[:, _SPINE, _FORWARD] -= style.lean + random.normal(0, 0.04)
    angles[:, _NECK, _FORWARD] -= random.normal(0.1, 0.08)


def _swing(angles: Array, style: Style, random: np.random.RandomState) -> None:
    """Four sinusoids on every joint that moves."""
    seconds = np.arange(len(angles)) / FPS
    legs = 0.04 if style.hip > 1 or style.walks else 0.08
    extents = {
        _R_HIP: legs, _L_HIP: legs, _R_KNEE: 1.5 * legs, _L_KNEE: 1.5 * legs,
        _SPINE: style.trunk, _THORAX: 0.6 * style.trunk, _NECK: 0.2,
        _R_SHOULDER: style.arms, _L_SHOULDER: style.arms,
        _R_ELBOW: 0.9 * style.arms, _L_ELBOW: 0.9 * style.arms,
    }  # fmt: skip
    hinges = (_R_KNEE, _L_KNEE, _R_ELBOW, _L_ELBOW)
    for joint, extent in extents.items():
        hz = random.uniform(_SLOWEST_HZ, style.fastest, (4, 3))
        phase = random.uniform(0, 2 * np.pi, (4, 3))
        size = extent * random.uniform(0.2, 0.8, (4, 3)) / 2**0.5
        waves = size * np.sin(2 * np.pi * hz * seconds[:, None, None] + phase)
        if joint in hinges:
            waves[..., 1:] *= 0.2
        angles[:, joint] += waves.sum(1)
    # Knees and elbows do not bend backwards.
    angles[:, (_R_KNEE, _L_KNEE), _FORWARD] = angles[:, (_R_KNEE, _L_KNEE), _FORWARD].clip(-2.6, 0)
    elbows = angles[:, (_R_ELBOW, _L_ELBOW), _FORWARD]
    angles[:, (_R_ELBOW, _L_ELBOW), _FORWARD] = elbows.clip(0, 2.6)


def _walk(angles: Array, random: np.random.RandomState) -> Array:
    """Adds steps and returns the path of the root on the ground, (F, 2)."""
    seconds = np.arange(len(angles)) / FPS
    cycle = 2 * np.pi * random.uniform(0.75, 1.05) * seconds + random.uniform(0, 2 * np.pi)
    stride, arm = random.uniform(0.4, 0.6), random.uniform(0.25, 0.5)
    for hip, knee, shoulder, phase in (
        (_R_HIP, _R_KNEE, _R_SHOULDER, 0.0),
        (_L_HIP, _L_KNEE, _L_SHOULDER, np.pi),
    ):
        angles[:, hip, _FORWARD] += stride * np.sin(cycle + phase)
        # The knee bends while its leg swings forward.
        angles[:, knee, _FORWARD] -= 1.0 * np.maximum(np.cos(cycle + phase), 0)
        angles[:, shoulder, _FORWARD] -= arm * np.sin(cycle + phase)
    radius, speed = random.uniform(700, 1400), random.uniform(900, 1300)
    sense = random.choice([-1, 1])
    along = sense * speed / radius * seconds + random.uniform(0, 2 * np.pi)
    # Forward is y, so the heading is a quarter turn behind the way round.
    angles[:, 0, _TWIST] += along if sense > 0 else along + np.pi
    return radius * np.stack((np.cos(along), np.sin(along)), -1)


def _stand(angles: Array, style: Style, random: np.random.RandomState) -> Array:
    """Turns on the spot and returns where the root is on the ground, (F, 2)."""
    seconds = np.arange(len(angles)) / FPS
    turn = 0.2 * style.turn if style.hip > 1 else style.turn
    wave = np.sin(2 * np.pi * random.uniform(0.05, 0.25) * seconds + random.uniform(0, 2 * np.pi))
    angles[:, 0, _TWIST] += random.uniform(0, 2 * np.pi) + turn * wave
    drift = np.sin(np.outer(seconds, random.uniform(0.3, 1.0, 2)) + random.uniform(0, 6, 2))
    place: Array = random.uniform(-_ROOM, _ROOM, 2) + 40 * drift
    return place


def _rotations(angles: Array) -> Array:
    """(F, J, 3, 3) of angles about x, y and z: Rz Ry Rx."""
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(f(angles), -1, 0) for f in (np.cos, np.sin))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))
