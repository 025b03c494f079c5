"""Classes and basic forms of the words that the embedded captions use; no parser is needed.

Tags are the universal ones that HumanML3D's caption files carry.
"""

import re

_VERBS = {
    "walks": "walk", "strolls": "stroll", "runs": "run", "jogs": "jog", "jumps": "jump",
    "hops": "hop", "squats": "squat", "crouches": "crouch", "sits": "sit", "takes": "take",
    "turns": "turn", "rotates": "rotate", "spins": "spin", "makes": "make", "waves": "wave",
    "raises": "raise", "lifts": "lift", "punches": "punch", "strikes": "strike", "kicks": "kick",
    "steps": "step", "shuffles": "shuffle", "bows": "bow", "bends": "bend", "stands": "stand",
    "waits": "wait", "goes": "go",
}  # fmt: skip
_NOUNS = {
    "person": "person", "man": "man", "figure": "figure", "circle": "circle", "seat": "seat",
    "quarter": "quarter", "half": "half", "turn": "turn", "hand": "hand", "arm": "arm",
    "fist": "fist", "foot": "foot", "leg": "leg", "knees": "knee", "times": "time",
    "waist": "waist", "side": "side",
}  # fmt: skip
_OTHERS = {
    "DET": "a the both",
    "PRON": "someone his",
    "ADP": "in to with at on of",
    "ADJ": "left right full low",
    "ADV": "forward backward ahead straight slowly quickly once twice repeatedly then down around "
    "still up sideways clockwise counterclockwise back",
    "NUM": "three four",
    "CCONJ": "and",
}
_TAGS = (
    {word: f"{lemma}/VERB" for word, lemma in _VERBS.items()}
    | {word: f"{lemma}/NOUN" for word, lemma in _NOUNS.items()}
    | {word: f"{word}/{tag}" for tag, words in _OTHERS.items() for word in words.split()}
)
_MIRRORED = {"left": "right", "clockwise": "counterclockwise"}
_MIRRORED |= {there: here for here, there in _MIRRORED.items()}
_WORD = re.compile(r"[a-z]+")


def tagged(caption: str) -> str:
    """Its words as `lemma/TAG lemma/TAG ...`; words that are not known here are tagged OTHER.

    Args:
        caption: Any text.
    """
    words = caption.lower().replace("-", "")
    return " ".join(_tag(word) for word in _WORD.findall(words))


def mirrored(caption: str) -> str:
    """The caption of the mirrored motion: left and right exchanged, and senses of rotation."""

    def swapped(match: re.Match[str]) -> str:
        word = match.group()
        other = _MIRRORED.get(word.lower())
        if other is None:
            return word
        return other.capitalize() if word[0].isupper() else other

    return re.sub(r"[A-Za-z]+", swapped, caption)


def _tag(word: str) -> str:
    return _TAGS.get(word, f"{word}/OTHER")
