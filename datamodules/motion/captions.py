"""Caption files of HumanML3D, and sentences as the evaluators read them.

A line is `caption#word/TAG word/TAG ...#from#to`; seconds 0 to 0 mean the whole clip. A sentence
has 22 places: sos, at most 20 words, eos, then unk. Its words have one of 15 classes; words of five
lists (places, body, objects, actions, manners) have the list's class, whatever their tag
(EricGuo5513/text-to-motion, utils/word_vectorizer.py).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.motion.lexicon import tagged

MAX_WORDS = 20
PLACES = MAX_WORDS + 2
CLASSES = (
    "VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV", "Loc_VIP", "Body_VIP",
    "Obj_VIP", "Act_VIP", "Desc_VIP", "OTHER",
)  # fmt: skip
_LISTS = {
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down "
    "straight curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop "
    "sit lift lower raise wash stand kneel stroll rub bend balance flap jog shuffle lean rotate "
    "spin spread climb",
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
_CLASS_OF = {
    word: name for name, words in reversed(_LISTS.items()) for word in words.split()
}  # The first list that has a word wins.
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class Caption:
    """A line of a caption file.

    Args:
        text: As it was written.
        tokens: `word/TAG`, separated by blanks.
        start: First second it is about.
        stop: Last one; 0 to 0 is the whole clip.
    """

    text: str
    tokens: str
    start: float = 0.0
    stop: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether it is about the whole clip."""
        return self.start == 0.0 and self.stop == 0.0


@dataclass(frozen=True)
class BadLine:
    """A line that is no caption.

    Args:
        number: Of the line, from 1.
        why: What is wrong with it.
    """

    number: int
    why: str


def read_captions(path: Path) -> tuple[dict[int, Caption], list[BadLine]]:
    """Captions of a clip by line number, from 1, and the lines that are none.

    Args:
        path: `texts/<id>.txt`. Characters that are not UTF-8 become replacement characters.
    """
    captions: dict[int, Caption] = {}
    bad = []
    text = path.read_bytes().decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        found = parse_line(line)
        if isinstance(found, str):
            bad.append(BadLine(number, found))
        else:
            captions[number] = found
    return captions, bad


def parse_line(line: str) -> Caption | str:
    """A caption, or why the line is none."""
    fields = line.strip().split("#")
    if len(fields) != 4:
        return f"{len(fields)} fields between #, not 4"
    text, tokens = fields[0], fields[1].split()
    if not text.strip():
        return "no caption"
    try:
        start, stop = (0.0 if math.isnan(value) else value for value in map(float, fields[2:]))
    except ValueError:
        return f"seconds {fields[2]!r} to {fields[3]!r}"
    if start < 0 or not (math.isfinite(start) and math.isfinite(stop)):
        return f"seconds {start} to {stop}"
    words = [token for token in tokens if token.count("/") == 1 and not token.startswith("/")]
    return Caption(text, " ".join(words) or tagged(text), start, stop)


def sentence(tokens: str) -> tuple[list[str], int]:
    """Tokens at the 22 places of a sentence, and how many of these are in use.

    Args:
        tokens: `word/TAG`, separated by blanks.
    """
    words = ["sos/OTHER", *tokens.split()[:MAX_WORDS], "eos/OTHER"]
    return words + ["unk/OTHER"] * (PLACES - len(words)), len(words)


def word_class(word: str, tag: str) -> int:
    """Place in `CLASSES`.

    Args:
        word: Basic form.
        tag: Universal tag.
    """
    name = _CLASS_OF.get(word, tag)
    return CLASSES.index(name if name in CLASSES else "OTHER")


def vocabulary(captions: Sequence[str]) -> tuple[str, ...]:
    """Words of captions in lower case, sorted; what `[a-z]+('[a-z]+)?` finds."""
    return tuple(sorted({word for text in captions for word in _WORD.findall(text.lower())}))
