"""Caption lines, sentences and word vectors, against the vectors of the original loader."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blocks.errors import SuiteError
from datamodules.motion.captions import (
    CLASSES,
    Caption,
    parse_line,
    read_captions,
    sentence,
    vocabulary,
    word_class,
)
from datamodules.motion.lexicon import mirrored, tagged
from datamodules.motion.word_vectors import FILES, GloveVectors, encoded, word_vectors


@pytest.fixture
def reference(golden: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden / "motion" / "text_vectorizer.json").read_text())
    return content


@pytest.fixture
def glove(tmp_path: Path, reference: dict[str, Any]) -> Path:
    """The published three files, of the reference's vocabulary."""
    words = reference["vocab"]
    folder = tmp_path / "glove"
    folder.mkdir()
    np.save(folder / FILES[0], np.arange(len(words))[:, None] + np.zeros((1, 300)))
    (folder / FILES[1]).write_bytes(pickle.dumps(words))
    (folder / FILES[2]).write_bytes(pickle.dumps({word: i for i, word in enumerate(words)}))
    return folder


def test_classes_and_their_order_are_the_published_ones(reference: dict[str, Any]) -> None:
    assert {name: place for place, name in enumerate(CLASSES)} == reference["pos_enumerator"]
    for name, words in reference["vip"].items():
        assert all(CLASSES[word_class(word, "VERB")] == name for word in words)


def test_sentences_are_those_of_the_reference(reference: dict[str, Any], glove: Path) -> None:
    vectors = word_vectors(glove)
    assert vectors.kind == "glove"
    for example in reference["examples"]:
        caption = parse_line(example["line"])
        assert isinstance(caption, Caption)
        assert caption.text == example["caption"]
        assert (caption.start, caption.stop) == (example["from_s"], example["to_s"])
        assert sentence(caption.tokens) == (example["tokens_padded"], example["sent_len"])
        words, classes, count = encoded(caption.tokens, vectors)
        assert count == example["sent_len"]
        assert words[:, 0].tolist() == example["vocab_index"]
        assert classes.argmax(1).tolist() == example["pos_index"]
        assert (classes.sum(1) == 1).all()


def test_hashed_vectors_depend_on_the_word_alone(tmp_path: Path) -> None:
    vectors = word_vectors(tmp_path / "nothing")
    assert vectors.kind == "hashed"
    words, _, _ = encoded("walk/VERB zigzag/VERB walk/VERB", vectors)
    assert words.shape == (22, 300)
    assert (words[1] == words[3]).all() and (words[1] != words[2]).any()
    assert 0.3 < float(words[:5].std()) < 0.5
    # Pinned: evaluators that were trained with them go on working.
    assert words[1, :3].tolist() == pytest.approx([0.5513912, 0.70870954, -0.01808364])


def test_pickles_that_ask_for_code_are_refused(glove: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("run",)

    (glove / FILES[1]).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(SuiteError, match="asks to call builtins.print"):
        GloveVectors(glove)


def test_incomplete_word_vectors_are_named(glove: Path) -> None:
    np.save(glove / FILES[0], np.zeros((3, 300)))
    with pytest.raises(SuiteError, match="19 words or more by 300"):
        GloveVectors(glove)
    (glove / FILES[2]).unlink()
    with pytest.raises(SuiteError, match="no our_vab_idx.pkl"):
        GloveVectors(glove)


@pytest.mark.parametrize(
    "line, why",
    [
        ("a person walks#a/DET#0.0", "3 fields between #, not 4"),
        ("a # b#x/NOUN#0.0#0.0", "5 fields between #, not 4"),
        ("  #x/NOUN#0.0#0.0", "no caption"),
        ("a person#a/DET##", "seconds '' to ''"),
        ("a person#a/DET#-1#2", "seconds -1.0 to 2.0"),
        ("a person#a/DET#0#inf", "seconds 0.0 to inf"),
    ],
)
def test_lines_that_are_no_captions_say_why(line: str, why: str) -> None:
    assert parse_line(line) == why


def test_nan_seconds_are_zero_and_odd_characters_pass(tmp_path: Path) -> None:
    file = tmp_path / "1.txt"
    file.write_bytes(
        b"caf\xe9 \xe2\x80\x99s#cafe/NOUN /X bad #nan#nan \r\n\nno tags##0.0#0.0\nbroken\n"
    )
    captions, bad = read_captions(file)
    assert captions[1].whole and captions[1].tokens == "cafe/NOUN"
    assert captions[3].tokens == "no/OTHER tags/OTHER"
    assert [(line.number, line.why) for line in bad] == [(4, "1 fields between #, not 4")]


def test_long_captions_keep_twenty_words() -> None:
    tokens, count = sentence(" ".join(f"w{i}/NOUN" for i in range(30)))
    assert count == len(tokens) == 22 and tokens[-2:] == ["w19/NOUN", "eos/OTHER"]


def test_vocabulary_is_sorted_and_in_lower_case() -> None:
    assert vocabulary(["A man's walk.", "walk, 2 steps"]) == ("a", "man's", "steps", "walk")


def test_mirroring_words() -> None:
    assert mirrored("Left, then the right hand clockwise.") == (
        "Right, then the left hand counterclockwise."
    )
    assert tagged("someone raises his left hand") == (
        "someone/PRON raise/VERB his/PRON left/ADJ hand/NOUN"
    )
