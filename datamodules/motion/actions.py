"""What people do, by formulas: each action fills a `Track` of angles, speeds and lifts.

t is the action's own clock in seconds, (T,); `rate` says how fast it is done, `size` how wide.
`side` is 1 for the left, -1 for the right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from datamodules.motion.body import (
    ANKLE,
    ELBOW,
    HIP,
    KNEE,
    PITCH,
    ROLL,
    SHOULDER,
    SPINE,
    YAW,
    Array,
    resting,
    smoothstep,
)


@dataclass
class Track:
    """What an action does, over T frames.

    Args:
        angles: Of the joints, (T, 22, 3).
        forward: Speed along the heading, m/s.
        side: Speed to the left.
        turn: Speed of the heading, rad/s, to the left.
        lift: Height above the ground, metres.
        planted: How firmly the left and the right foot stay below the body, (T, 2), 0 to 1.
    """

    angles: Array
    forward: Array
    side: Array
    turn: Array
    lift: Array
    planted: Array

    def blended(self, other: "Track", weight: Array) -> "Track":
        """This track where the weight (T,) is 0, the other one where it is 1."""

        def mixed(a: Array, b: Array) -> Array:
            w = weight.reshape(-1, *[1] * (a.ndim - 1))
            return a * (1 - w) + b * w

        names = [f.name for f in fields(self)]
        return Track(*(mixed(getattr(self, name), getattr(other, name)) for name in names))


@dataclass(frozen=True)
class Manner:
    """How an action is done.

    Args:
        rate: 1 at the usual speed.
        size: 1 at the usual width.
        side: 1 left, -1 right.
        direction: 1 forward, -1 backward, 0 on the spot.
        count: Repetitions; 0 goes on to the end.
        angle: Of a turn, radians.
        phase: Where in its stride a walk begins, radians.
    """

    rate: float = 1.0
    size: float = 1.0
    side: int = 1
    direction: int = 1
    count: int = 0
    angle: float = 0.0
    phase: float = field(default=0.0, compare=False)

    def seconds(self, period: float) -> float:
        """How long all repetitions take."""
        return self.count * period / self.rate


def _still(t: Array, planted: float = 1.0) -> Track:
    zero = np.zeros_like(t)
    angles = resting(len(t))
    angles[:, SPINE[1], PITCH] += 0.015 * np.sin(1.9 * t)
    angles[:, SPINE[1], ROLL] += 0.012 * np.sin(1.3 * t + 1)
    return Track(angles, zero, zero.copy(), zero.copy(), zero.copy(), np.full((len(t), 2), planted))


def _cycles(t: Array, manner: Manner, period: float) -> tuple[Array, Array]:
    """Place in the current repetition, 0 to 1, and whether there is one."""
    u = t * manner.rate / period
    runs = (u >= 0) & ((u < manner.count) if manner.count else True)
    return np.where(runs, u % 1, 0.0), runs.astype(float)


def _legs(
    track: Track,
    theta: Array,
    swing: float,
    knee: float,
    bend: float,
    stance: float = 0.0,
    strength: Any = 1.0,
) -> None:
    """Legs that step; knee and hip bend while a leg swings forward.

    Args:
        track: Whose legs.
        theta: Phase of the left leg, which goes forward from -pi / 2 to pi / 2.
        swing: How far the hips turn.
        knee: How far the knees bend in the swing.
        bend: How far they always do.
        stance: How much longer a leg goes backward than forward.
        strength: 0 stands, 1 steps.
    """
    for side, lag in ((0, 0.0), (1, np.pi)):
        phase = theta + lag
        phase = phase + stance * np.sin(phase)
        up = np.maximum(0, np.sin(phase + 1.85))
        hip = -swing * np.sin(phase) - 0.25 * knee * up - bend / 2
        flex = bend + knee * up
        track.angles[:, HIP[side], PITCH] += strength * hip
        track.angles[:, KNEE[side], PITCH] += strength * flex
        # Feet stay close to level.
        track.angles[:, ANKLE[side], PITCH] -= strength * (0.8 * (hip + flex) + 0.15 * up)


def _stride(
    t: Array, manner: Manner, hertz: float, legs: tuple[float, float, float, float], pace: float
) -> Track:
    track = _still(t, planted=0.0)
    swing, knee, bend, stance = legs
    width = np.sqrt(manner.size) * (0.6 if manner.direction < 0 else 1.0)
    theta = 2 * np.pi * hertz * manner.rate * manner.direction * t + manner.phase
    _legs(track, theta, swing * width, knee, bend, stance)
    for side, lag in ((0, 0.0), (1, np.pi)):
        track.angles[:, SHOULDER[side], PITCH] += 0.6 * swing * width * np.sin(theta + lag)
    track.angles[:, SPINE[0], YAW] += 0.08 * np.sin(theta)
    track.forward += pace * manner.rate * manner.direction * width
    return track


def walk(t: Array, manner: Manner) -> Track:
    """Forward or backward."""
    return _stride(t, manner, 0.9, (0.5, 0.8, 0.1, 0.3), 1.15)


def run(t: Array, manner: Manner) -> Track:
    """Forward, with bent elbows and a flight in each stride."""
    track = _stride(t, manner, 1.35, (0.7, 1.2, 0.25, 0.0), 2.7)
    theta = 2 * np.pi * 1.35 * manner.rate * t + manner.phase
    track.lift += 0.06 * np.sin(theta) ** 2
    _elbows(track, 1.3)
    track.angles[:, SPINE[0], PITCH] += 0.12
    return track


def circle(t: Array, manner: Manner) -> Track:
    """A walk round a circle."""
    track = walk(t, manner)
    track.turn += 0.6 * manner.rate * manner.side
    return track


def run_circle(t: Array, manner: Manner) -> Track:
    """A run round a circle."""
    track = run(t, manner)
    track.turn += 0.9 * manner.rate * manner.side
    return track


def step(t: Array, manner: Manner) -> Track:
    """Sideways: the leading foot goes ahead, the other one follows."""
    track = _still(t, planted=0.0)
    u = t * 0.9 * manner.rate
    spread = 0.13 * (1 - np.cos(2 * np.pi * u)) * manner.size
    lead = 0 if manner.side > 0 else 1
    for side, sign, lag in ((lead, 1, 0.0), (1 - lead, -1, 0.5)):
        up = np.maximum(0, np.sin(2 * np.pi * (u + lag))) * 0.9
        track.angles[:, HIP[side], ROLL] += sign * manner.side * spread
        track.angles[:, HIP[side], PITCH] -= up / 2
        track.angles[:, KNEE[side], PITCH] += up
        track.angles[:, ANKLE[side], PITCH] -= up / 2
    speed = 2 * np.pi * 0.9 * manner.rate * 0.13 * np.abs(np.sin(2 * np.pi * u)) * 0.8
    track.side += manner.side * speed * manner.size
    return track


def jump(t: Array, manner: Manner) -> Track:
    """Crouch, flight, landing."""
    track = _still(t)
    u, active = _cycles(t, manner, 1.3)
    crouch = np.where(u < 0.35, np.sin(np.pi * u / 0.35) ** 2, 0.0)
    crouch = np.where(u > 0.8, 0.6 * np.sin(np.pi * (u - 0.8) / 0.2) ** 2, crouch) * active
    flight = np.clip((u - 0.35) / 0.45, 0, 1)
    air = 4 * flight * (1 - flight) * active
    _squatting(track, 0.8 * crouch + 0.12 * air, 1.6)
    track.lift += 0.42 * np.sqrt(manner.size) * air
    track.forward += 1.3 * manner.direction * manner.size * (air > 0)
    for shoulder in SHOULDER:
        track.angles[:, shoulder, PITCH] += 0.9 * crouch - 1.6 * air
    # In the air nothing holds the feet in place.
    return track


def squat(t: Array, manner: Manner) -> Track:
    """Knees bend, arms go forward."""
    track = _still(t)
    u, active = _cycles(t, manner, 2.2)
    q = np.sin(np.pi * u) ** 2 * active * min(manner.size, 1.1)
    _squatting(track, 1.35 * q, 1.75 / 1.4)
    track.angles[:, SPINE[0], PITCH] += 0.5 * q
    for shoulder in SHOULDER:
        track.angles[:, shoulder, PITCH] -= 1.3 * q
    return track


def sit(t: Array, manner: Manner) -> Track:
    """Down onto a seat, and there for good."""
    track = _still(t)
    q = smoothstep((t - 0.4) * manner.rate / 1.5)
    _squatting(track, 1.45 * q, 1.0)
    track.angles[:, SPINE[0], PITCH] += 0.45 * np.sin(np.pi * q)
    for shoulder in SHOULDER:
        track.angles[:, shoulder, PITCH] -= 0.5 * q
    return track


def bow(t: Array, manner: Manner) -> Track:
    """The upper body leans forward and comes back."""
    track = _still(t)
    u, active = _cycles(t, manner, 2.4)
    q = np.sin(np.pi * u) ** 2 * active
    for joint in SPINE:
        track.angles[:, joint, PITCH] += 0.42 * manner.size * q
    for side in (0, 1):
        track.angles[:, SHOULDER[side], PITCH] -= 1.0 * q
    return track


def turn(t: Array, manner: Manner) -> Track:
    """On the spot, in small steps."""
    track = _still(t, planted=0.0)
    seconds = 1.8 * max(manner.angle / np.pi, 0.5) / manner.rate
    u = (t - 0.3) / seconds
    heading = manner.side * manner.angle * smoothstep(u)
    track.turn += np.gradient(heading, t) if len(t) > 1 else 0
    stepping = smoothstep(4 * u) * smoothstep(4 * (1.05 - u))
    theta = 2 * np.pi * 1.3 * manner.rate * t + manner.phase
    _legs(track, theta, 0.05, 0.5, 0.1, strength=stepping)
    return track


def wave(t: Array, manner: Manner) -> Track:
    """One arm up at the side, its forearm to and fro."""
    track = _still(t)
    up = smoothstep(t / 0.6)
    arm, sign = _arm(manner)
    swing = 0.9 + 0.5 * manner.size * np.sin(2 * np.pi * 1.8 * manner.rate * t)
    track.angles[:, SHOULDER[arm], ROLL] += sign * 1.9 * up
    track.angles[:, ELBOW[arm], ROLL] += sign * swing * up
    track.angles[:, ELBOW[arm], YAW] *= 1 - up
    return track


def lift_arm(t: Array, manner: Manner) -> Track:
    """One arm up in front, and there for good."""
    track = _still(t)
    up = smoothstep(t * manner.rate / 0.9)
    arm, _ = _arm(manner)
    track.angles[:, SHOULDER[arm], PITCH] -= 2.5 * up
    return track


def punch(t: Array, manner: Manner) -> Track:
    """Both arms on guard, one strikes."""
    track = _still(t)
    u, active = _cycles(t - 0.4, manner, 0.9)
    hit = np.where(u < 0.6, np.sin(np.pi * u / 0.6) ** 2, 0.0) * active
    guard = smoothstep(t / 0.4)
    arm, sign = _arm(manner)
    for side, way in ((0, 1), (1, -1)):
        strike = hit if side == arm else 0 * hit
        track.angles[:, SHOULDER[side], PITCH] -= guard * (0.7 + 0.85 * strike)
        track.angles[:, ELBOW[side], YAW] -= way * guard * (1.7 - 1.85 * strike)
    track.angles[:, SPINE[2], YAW] -= sign * 0.35 * hit * manner.size
    return track


def kick(t: Array, manner: Manner) -> Track:
    """One leg swings up in front, the other one carries the body."""
    track = _still(t)
    u, active = _cycles(t - 0.2, manner, 1.6)
    q = np.where(u < 0.7, np.sin(np.pi * u / 0.7) ** 2, 0.0) * active
    cock = np.where(u < 0.35, np.sin(np.pi * u / 0.35) ** 2, 0.0) * active
    leg, _ = _arm(manner)
    track.angles[:, HIP[leg], PITCH] -= 1.25 * min(manner.size, 1.15) * q
    track.angles[:, KNEE[leg], PITCH] += 0.9 * cock
    track.angles[:, KNEE[1 - leg], PITCH] += 0.12 * q
    track.angles[:, HIP[1 - leg], PITCH] -= 0.06 * q
    track.angles[:, ANKLE[1 - leg], PITCH] -= 0.06 * q
    track.angles[:, SPINE[0], PITCH] -= 0.15 * q
    track.angles[:, SHOULDER[1 - leg], PITCH] -= 0.7 * q
    track.planted[:, leg] = 0
    return track


def stand(t: Array, manner: Manner) -> Track:
    """Nothing but a little sway."""
    return _still(t)


ACTIONS: dict[str, Callable[[Array, Manner], Track]] = {
    "walk": walk, "run": run, "circle": circle, "run_circle": run_circle, "step": step,
    "jump": jump, "squat": squat, "sit": sit, "bow": bow, "turn": turn, "wave": wave,
    "raise": lift_arm, "punch": punch, "kick": kick, "stand": stand,
}  # fmt: skip
# Seconds of one repetition at the usual rate, of the actions that are counted.
PERIODS = {"jump": 1.3, "squat": 2.2, "bow": 2.4, "punch": 0.9, "kick": 1.6}


def _arm(manner: Manner) -> tuple[int, int]:
    """Place of the side in pairs of joints, and its sign."""
    return (0 if manner.side > 0 else 1), manner.side


def _squatting(track: Track, hip: Array, knee: float) -> None:
    """Both legs bend; feet stay level."""
    for side in (0, 1):
        track.angles[:, HIP[side], PITCH] -= hip
        track.angles[:, KNEE[side], PITCH] += knee * hip
        track.angles[:, ANKLE[side], PITCH] -= (knee - 1) * hip


def _elbows(track: Track, bend: float) -> None:
    for side, sign in ((0, 1), (1, -1)):
        track.angles[:, ELBOW[side], YAW] = -sign * bend
