"""CLIP and BERT from local folders: right numbers, cut captions, never trained, never stored."""

from pathlib import Path

import pytest
import torch
from torch import nn

from blocks.errors import SuiteError
from lightning_modules.motion import BERTText, CLIPText
from tests.lightning_modules.motion.text_encoders.towers import (
    openai_entries,
    write_bert,
    write_clip,
    write_tokenizer,
)

CAPTIONS = ["a person walks", "runs"]


def test_clip_gives_the_projected_end_of_the_text(tmp_path: Path) -> None:
    from transformers import CLIPTextModelWithProjection

    folder = write_clip(tmp_path / "clip")
    encoder = CLIPText(str(folder))
    tokens, mask = encoder(CAPTIONS)
    assert tokens.shape == (2, 1, 16) and not mask.any()
    # By hand: start, letters with the end of a word marked, end; nothing behind.
    tower = CLIPTextModelWithProjection.from_pretrained(folder).eval()
    letters = [ord(letter) - ord("a") for letter in "runs"]
    ids = torch.tensor([[52, *letters[:3], letters[3] + 26, 53]])
    with torch.no_grad():
        expected = tower(input_ids=ids).text_embeds
    torch.testing.assert_close(tokens[1], expected)
    assert not torch.allclose(tokens[0], tokens[1])


def test_clip_cuts_after_twenty_tokens(tmp_path: Path) -> None:
    encoder = CLIPText(str(write_clip(tmp_path / "clip")))
    first, second, other = encoder(["a " * 20, "a " * 20 + "person", "a " * 19 + "person"])[0]
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, other)


def test_words_of_clip_follow_the_text(tmp_path: Path) -> None:
    encoder = CLIPText(str(write_clip(tmp_path / "clip")), word_tokens=True, max_length=8)
    tokens, mask = encoder(["runs"])
    assert tokens.shape == (1, 11, 16)
    assert mask.tolist() == [[False] * 7 + [True] * 4]  # Pooled, start, four letters, end.
    alone, _ = encoder(["runs"])
    beside, _ = encoder(["runs", "a person walks"])
    torch.testing.assert_close(beside[0], alone[0])
    wide = CLIPText(str(write_clip(tmp_path / "wide", 16, 8)), word_tokens=True)
    with pytest.raises(SuiteError, match="as wide as"):
        wide.prepare()


@pytest.mark.parametrize("prefix", ["", "text."])
def test_the_tower_of_openai_becomes_that_of_hugging_face(tmp_path: Path, prefix: str) -> None:
    from transformers import CLIPTextModelWithProjection

    folder = write_clip(tmp_path / "clip", width=128, projected=32)
    state = CLIPTextModelWithProjection.from_pretrained(folder).state_dict()
    entries = {prefix + key: value for key, value in openai_entries(dict(state)).items()}
    place = tmp_path / "openai"
    place.mkdir()
    write_tokenizer(place)
    torch.save(entries, place / "clip.pt")
    found, _ = CLIPText(str(place / "clip.pt"))(CAPTIONS)
    expected, _ = CLIPText(str(folder))(CAPTIONS)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("distilled", [False, True])
def test_bert_gives_a_token_a_piece(tmp_path: Path, distilled: bool) -> None:
    encoder = BERTText(str(write_bert(tmp_path / "bert", distilled)), max_length=7)
    tokens, mask = encoder(CAPTIONS)
    assert tokens.shape == (2, 7, 16)
    assert mask.sum(1).tolist() == [2, 4]  # [CLS] a person walks [SEP]; [CLS] runs [SEP].
    assert not tokens[mask].any()
    alone, _ = encoder(CAPTIONS[1:])
    torch.testing.assert_close(tokens[1], alone[0])


def test_a_tower_is_not_trained_not_stored_and_follows_the_module(tmp_path: Path) -> None:
    encoder = CLIPText(str(write_clip(tmp_path / "clip")))
    module = nn.ModuleDict({"text": encoder, "net": nn.Linear(2, 2)}).train()
    encoder.prepare()
    tower = encoder._held[0]
    assert not tower.training and not any(p.requires_grad for p in tower.parameters())
    assert not module.state_dict().keys() - {"net.weight", "net.bias"}
    assert len(list(module.parameters())) == 2
    assert not encoder(CAPTIONS)[0].requires_grad
    module.to("meta")
    assert next(tower.parameters()).is_meta


def test_precision_around_it_does_not_reach_the_tower(tmp_path: Path) -> None:
    encoder = CLIPText(str(write_clip(tmp_path / "clip")))
    expected, _ = encoder(CAPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = encoder(CAPTIONS)
    assert torch.equal(found, expected)
    encoder.to(torch.float64)
    assert torch.equal(encoder(CAPTIONS)[0], expected)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such folder"):
        CLIPText(str(tmp_path / "nowhere")).prepare()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SuiteError, match="without config.json"):
        BERTText(str(tmp_path / "empty")).prepare()
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(SuiteError, match="no token_embedding.weight"):
        CLIPText(str(tmp_path / "other.pt")).prepare()
