"""Word vectors for the evaluators: the published GloVe files, or vectors made of a word's hash."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.files import load_pickle
from datamodules.motion.captions import CLASSES, PLACES, sentence, word_class

WIDTH = 300
# About the spread of GloVe's own numbers.
_SPREAD = 0.4
FILES = ("our_vab_data.npy", "our_vab_words.pkl", "our_vab_idx.pkl")


class WordVectors(Protocol):
    """Vectors by word."""

    kind: Literal["glove", "hashed"]

    def __contains__(self, word: str) -> bool:
        """Whether there is a vector for this word."""

    def __getitem__(self, word: str) -> npt.NDArray[np.float32]:
        """Its vector (300,)."""


class GloveVectors:
    """The files that every repository of this line ships.

    Args:
        folder: Has our_vab_data.npy (V, 300), our_vab_words.pkl and our_vab_idx.pkl.

    Raises:
        SuiteError: Files are missing, or do not belong together.
    """

    kind: Literal["glove", "hashed"] = "glove"

    def __init__(self, folder: Path) -> None:
        if missing := [name for name in FILES if not (folder / name).is_file()]:
            raise SuiteError(
                expected=f"{', '.join(FILES)}",
                found=f"no {', '.join(missing)}",
                where=str(folder),
                cure="copy the whole folder, or leave it out for hashed vectors",
            )
        self.table = np.load(folder / FILES[0]).astype(np.float32)
        words: Any = load_pickle(folder / FILES[1])
        places: Any = load_pickle(folder / FILES[2])
        self.places: dict[str, int] = {str(word): int(places[word]) for word in words}
        last = max(self.places.values(), default=-1)
        if self.table.ndim != 2 or self.table.shape[1] != WIDTH or last >= len(self.table):
            raise SuiteError(
                expected=f"a table of {last + 1} words or more by {WIDTH}",
                found=f"shape {self.table.shape}",
                where=str(folder / FILES[0]),
                cure="take the three files from one source",
            )
        for word in ("unk", "sos", "eos"):
            if word not in self.places:
                raise SuiteError(
                    expected="vectors of unk, sos and eos",
                    found=f"no {word}",
                    where=str(folder / FILES[1]),
                    cure="use the files of EricGuo5513/text-to-motion",
                )

    def __contains__(self, word: str) -> bool:
        return word in self.places

    def __getitem__(self, word: str) -> npt.NDArray[np.float32]:
        vector: npt.NDArray[np.float32] = self.table[self.places[word]]
        return vector


class HashedVectors:
    """Random vectors that depend on the word alone; every word has one."""

    kind: Literal["glove", "hashed"] = "hashed"

    def __contains__(self, word: str) -> bool:
        return True

    def __getitem__(self, word: str) -> npt.NDArray[np.float32]:
        return _hashed(word)


@lru_cache(maxsize=65536)
def _hashed(word: str) -> npt.NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(0, _SPREAD, WIDTH)
    return vector.astype(np.float32)


def word_vectors(folder: Path) -> WordVectors:
    """GloVe files, if the folder is there, else hashed vectors."""
    return GloveVectors(folder) if folder.is_dir() else HashedVectors()


def encoded(tokens: str, vectors: WordVectors) -> tuple[Tensor, Tensor, int]:
    """A caption as the evaluators read it.

    Args:
        tokens: `word/TAG`, separated by blanks.
        vectors: Of the words.

    Returns:
        Vectors (22, 300), one-hot classes (22, 15), and how many places are in use.
    """
    placed, count = sentence(tokens)
    classes = torch.zeros(PLACES, len(CLASSES))
    table = np.empty((PLACES, WIDTH), np.float32)
    for place, token in enumerate(placed):
        word, tag = token.split("/")
        known = word in vectors
        table[place] = vectors[word if known else "unk"]
        classes[place, word_class(word, tag) if known else CLASSES.index("OTHER")] = 1
    return torch.from_numpy(table), classes, count
