"""Names of Human3.6M: subjects, actions, recordings, and those that are left out."""

import re
from typing import NamedTuple

from blocks.errors import SuiteError
from blocks.geometry.cameras import Camera
from blocks.geometry.h36m_cameras import H36M_CAMERAS

TRAIN_SUBJECTS = (1, 5, 6, 7, 8)
TEST_SUBJECTS = (9, 11)
FPS = 50
CAMERAS: dict[str, Camera] = {camera.name: camera for camera in H36M_CAMERAS}

# act_02 to act_16.
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
_FIRST_ACTION = 2

# Their ground truth is broken; every evaluation since MotionBERT leaves them out.
BLOCKED = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")

_PATTERN = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)")


class Recording(NamedTuple):
    """What a video's name says; camera counts from 1."""

    subject: int
    action: int
    subaction: int
    camera: int

    @property
    def name(self) -> str:
        """As in the databases."""
        subject, action, subaction, camera = self
        return f"s_{subject:02}_act_{action:02}_subact_{subaction:02}_ca_{camera:02}"


def recording_of(name: str) -> Recording:
    """The parts of a name like s_09_act_05_subact_02_ca_01.

    Raises:
        SuiteError: It is another kind of name.
    """
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise SuiteError(
            expected="a video name like s_09_act_05_subact_02_ca_01",
            found=repr(name),
            where="source of a Human3.6M database",
            cure="correct the names; subject, action and camera are read from them",
        )
    return Recording(*map(int, match.groups()))


def action_name(action: object) -> str:
    """Name of an action given as name, as number 2 to 16, or as its digits; others stay."""
    text = str(action)
    if text.isdecimal() and _FIRST_ACTION <= int(text) < _FIRST_ACTION + len(ACTIONS):
        return ACTIONS[int(text) - _FIRST_ACTION]
    return text


def action_number(name: str) -> int:
    """Number of an action's name, 2 to 16."""
    return ACTIONS.index(name) + _FIRST_ACTION


def is_blocked(name: str) -> bool:
    """Whether a video belongs to a recording that is left out of evaluation."""
    return name.rpartition("_ca_")[0] in BLOCKED
