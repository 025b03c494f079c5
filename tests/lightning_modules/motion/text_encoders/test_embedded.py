"""The trained text encoder: words, unknown words, tokens, another vocabulary."""

import pytest
import torch

from datamodules.motion.captions import vocabulary
from lightning_modules.motion import EmbeddedText
from lightning_modules.motion.text_encoders.embedded import split_words

WORDS = ["a", "left", "person", "right", "runs", "turns", "walks"]


def encoder(**options: object) -> EmbeddedText:
    torch.manual_seed(0)
    made = EmbeddedText(dim=12, word_dim=16, **options)  # type: ignore[arg-type]
    made.adopt_words(WORDS)
    return made.eval()


@torch.no_grad()
def test_a_caption_does_not_depend_on_its_neighbours() -> None:
    text = encoder(word_tokens=True, max_words=9)
    captions = ["A person turns left.", "a person walks", "a"]
    tokens, mask = text(captions)
    assert tokens.shape == (3, 10, 12)
    assert mask.sum(1).tolist() == [5, 6, 8]
    for i, caption in enumerate(captions):
        alone, alone_mask = text([caption])
        torch.testing.assert_close(tokens[i], alone[0])
        assert torch.equal(mask[i], alone_mask[0])


@torch.no_grad()
def test_words_and_their_order_count() -> None:
    text = encoder()
    captions = ["a person walks", "a person runs", "walks a person", "", "a person walks !"]
    tokens = text(captions)[0].squeeze(1)
    assert torch.equal(tokens[0], tokens[4]) and tokens.isfinite().all()
    others = [tokens[i] for i in (0, 1, 2, 3)]
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(others[i], others[j])


def test_long_captions_are_cut() -> None:
    text = encoder(max_words=3)
    first, second = text(["a person walks left", "a person walks right"])[0]
    assert torch.equal(first, second)


@torch.no_grad()
def test_unknown_words_are_hashed_and_named_once() -> None:
    text = encoder()
    with pytest.warns(UserWarning, match="moonwalks"):
        first, second = text(["a person moonwalks", "a person cartwheels"])[0]
    assert not torch.allclose(first, second)
    with pytest.warns(UserWarning) as said:
        text(["a person moonwalks and turns"])
    assert "moonwalks" not in str(said[0].message) and "and" in str(said[0].message)


def test_training_teaches_the_buckets_too() -> None:
    text = encoder(word_dropout=0.5).train()
    text(["a person walks"] * 20)[0].sum().backward()
    assert text.table.weight.grad is not None
    assert text.table.weight.grad[1:65].abs().sum() > 0


@torch.no_grad()
def test_another_vocabulary_keeps_the_words_it_shares() -> None:
    old, new = encoder(), EmbeddedText(dim=12, word_dim=16).eval()
    new.adopt_words(["a", "jumps", "person", "walks"])
    said = new.load_pretrained(old.state_dict(), old.words)
    assert "3 of 4 words known" in said
    torch.testing.assert_close(new(["a person walks"])[0], old(["a person walks"])[0])
    assert not torch.allclose(new(["a person jumps"])[0], new(["a person walks"])[0])


def test_the_same_words_leave_the_table_alone() -> None:
    text = encoder()
    table = text.table
    text.adopt_words(tuple(WORDS))
    text.adopt_words(())
    assert text.table is table and table.num_embeddings == 65 + len(WORDS)


def test_words_are_those_of_the_data() -> None:
    captions = [" A person's  arm, up-down 2x! ", "The figure WALKS 'round"]
    for caption in captions:
        assert set(split_words(caption)) == set(vocabulary([caption]))
    assert split_words(captions[0]) == ["a", "person's", "arm", "up", "down", "x"]
