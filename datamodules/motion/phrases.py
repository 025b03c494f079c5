"""Words for actions: what is done, how, where to and how often, all of it seen in the motion."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from datamodules.motion.actions import Manner

SUBJECTS = ("a person", "a man", "someone", "the figure")
_JOINTS = (" then ", " and then ", ", then ")
_COUNTS = {1: ("once",), 2: ("twice",), 3: ("three times",), 4: ("four times",)}
_ENDLESS = ("repeatedly",)


def verb_phrases(action: str, manner: Manner, speed: str) -> list[str]:
    """Ways to say what an action is, in the third person, without the subject.

    Args:
        action: Its name in `actions.ACTIONS`.
        manner: How it is done.
        speed: `slowly`, `quickly` or nothing.
    """
    stems = [" ".join(parts) for parts in itertools.product(*_SLOTS[action])]
    left = manner.side > 0
    words = {
        "{side}": "left" if left else "right",
        # Seen from above, somebody who keeps turning left goes counterclockwise.
        "{sense}": "counterclockwise" if left else "clockwise",
        "{way}": {1: "forward", -1: "backward", 0: ""}[manner.direction],
        "{turn}": _turn(manner.angle),
        "{count}": _COUNTS[manner.count][0] if manner.count else _ENDLESS[0],
    }
    phrases = []
    for stem in stems:
        for slot, word in words.items():
            stem = stem.replace(slot, word)
        if stem.startswith("turns around") and not math.isclose(manner.angle, math.pi):
            stem = stem.replace("around ", "")
        stem = " ".join(stem.split())
        phrases.append(f"{stem} {speed}".strip())
        if speed:
            phrases.append(f"{speed} {stem}")
    return list(dict.fromkeys(phrases))


def captions(
    phrases: Sequence[list[str]], number: int, random: np.random.Generator, lead: bool = True
) -> list[str]:
    """Different sentences about actions that follow each other.

    Args:
        phrases: Ways to say each of them.
        number: Sentences.
        random: Chooses.
        lead: Whether each starts with a subject; it always should, but for parts of sentences.
    """
    found: dict[str, None] = {}
    while len(found) < number:
        said = [str(random.choice(ways)) for ways in phrases]
        sentence = str(random.choice(_JOINTS)).join(said)
        if lead:
            sentence = f"{random.choice(SUBJECTS)} {sentence}"
        found[sentence + "."] = None
    return list(found)


def _turn(angle: float) -> str:
    quarters = round(2 * angle / math.pi)
    return {1: "quarter", 2: "half", 4: "full"}.get(quarters, "full")


_SLOTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "walk": (("walks", "strolls"), ("{way}",)),
    "run": (("runs", "jogs"), ("forward", "straight ahead")),
    "circle": (("walks", "strolls"), ("in a circle to the {side}", "{sense} in a circle")),
    "run_circle": (("runs", "jogs"), ("in a circle to the {side}", "{sense} in a circle")),
    "step": (("steps", "shuffles"), ("to the {side}", "sideways to the {side}")),
    "jump": (("jumps", "hops"), ("{way} {count}", "{count} {way}")),
    "squat": (("squats {count}", "squats down {count}", "bends both knees {count}"),),
    "sit": (("sits down", "takes a seat"),),
    "bow": (("bows {count}", "bends forward at the waist {count}"),),
    "turn": (
        ("makes a {turn} turn to the {side}", "makes a {turn} turn {sense}",
         "rotates a {turn} turn to the {side}"),
    ),
    "wave": (("waves with the {side} hand", "waves the {side} hand"),),
    "raise": (("raises", "lifts"), ("the {side}", "his {side}"), ("arm", "hand")),
    "punch": (("punches", "strikes"), ("with the {side}",), ("hand {count}", "fist {count}")),
    "kick": (("kicks",), ("with the {side}",), ("foot {count}", "leg {count}")),
    "stand": (("stands still", "waits"),),
}  # fmt: skip
