"""Cached text vectors: filled once, read without the encoder, never another encoder's."""

from pathlib import Path

import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.motion import BERTText, CachedText, CLIPText, EmbeddedText
from tests.lightning_modules.motion.text_encoders.towers import write_bert, write_clip

CAPTIONS = ["a person walks", "runs"]


def test_a_file_stands_in_for_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    encoder = BERTText(str(write_bert(tmp_path / "bert")), max_length=6)
    expected, hidden = encoder(CAPTIONS)
    filling = CachedText(str(path), encoder)
    filling(CAPTIONS[:1])
    filling(CAPTIONS)
    filling.save()
    found, mask = CachedText(str(path))(list(reversed(CAPTIONS)))
    torch.testing.assert_close(found.flip(0), expected)
    assert torch.equal(mask.flip(0), hidden)
    written = path.stat().st_mtime_ns
    filling.save()
    assert path.stat().st_mtime_ns == written  # Nothing new, nothing written.


def test_two_processes_add_to_one_file(tmp_path: Path) -> None:
    path, folder = tmp_path / "text.safetensors", write_bert(tmp_path / "bert")
    first, second = (CachedText(str(path), BERTText(str(folder), 6)) for _ in range(2))
    first(CAPTIONS[:1])
    second(CAPTIONS[1:])
    first.save()
    second.save()
    assert CachedText(str(path))(CAPTIONS)[0].shape == (2, 6, 16)


def test_the_file_of_another_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    filling = CachedText(str(path), BERTText(str(write_bert(tmp_path / "bert"))))
    filling(CAPTIONS)
    filling.save()
    other = CachedText(str(path), CLIPText(str(write_clip(tmp_path / "clip"))))
    with pytest.raises(SuiteError, match="this encoder made"):
        other.prepare()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    with pytest.raises(SuiteError, match="no such file"):
        CachedText(str(path)).prepare()
    filling = CachedText(str(path), BERTText(str(write_bert(tmp_path / "bert"))))
    filling(CAPTIONS)
    filling.save()
    with pytest.raises(SuiteError, match="a person flies"):
        CachedText(str(path))(["a person flies"])
    with pytest.raises(SuiteError, match="trained and needs no cache"):
        CachedText(str(path), EmbeddedText())
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(SuiteError, match="hash, tokens and mask"):
        CachedText(str(tmp_path / "other.pt")).prepare()
