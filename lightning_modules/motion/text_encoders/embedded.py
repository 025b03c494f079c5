"""A small text encoder that is trained with the network and needs no files.

    words -> table (128) -> 2 bidirectional Mamba layers -> [mean ; max] -> linear

Axes: B captions, W words, V width of a word, E width of the result.
"""

import re
import zlib
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from blocks import BiMamba
from lightning_modules.motion.text_encoders.text_encoder import TextEncoder

_BUCKETS = 64
# Row 0 stands for an empty caption and fills up short ones.
_FIRST_WORD = 1 + _BUCKETS


class EmbeddedText(TextEncoder):
    """Learns words from the training captions; the vocabulary travels in the checkpoint.

    A word that the training captions do not have is hashed into one of 64 buckets, and named in a
    warning. In training some words are taken for unknown, so that the buckets learn that too.

    Args:
        dim: Width E of the tokens.
        word_dim: Width V of a word.
        depth: Bidirectional Mamba layers.
        dropout: After the table and in front of the last layer.
        word_dropout: Probability of taking a known word for an unknown one, in training.
        word_tokens: Whether each word has a token of its own, for networks that look at words.
        max_words: Longer captions are cut.
    """

    def __init__(
        self,
        dim: int = 512,
        word_dim: int = 128,
        depth: int = 2,
        dropout: float = 0.1,
        word_dropout: float = 0.02,
        word_tokens: bool = False,
        max_words: int = 32,
    ) -> None:
        super().__init__(dim)
        self.word_dropout, self.max_words = word_dropout, max_words
        self.words: list[str] = []
        self._row: dict[str, int] = {}
        self._named: set[str] = set()
        self.table = nn.Embedding(_FIRST_WORD, word_dim)
        self.norms = nn.ModuleList(nn.LayerNorm(word_dim) for _ in range(depth))
        self.layers = nn.ModuleList(
            BiMamba(word_dim, backward_dt_init="matched") for _ in range(depth)
        )
        self.norm = nn.LayerNorm(word_dim)
        self.dropout = nn.Dropout(dropout)
        self.pooled = nn.Linear(2 * word_dim, dim)
        self.word = nn.Linear(word_dim, dim) if word_tokens else None

    def no_weight_decay(self) -> set[str]:
        """Words that are rare would only shrink."""
        return {"table.weight"}

    def adopt_words(self, words: Sequence[str]) -> None:
        """Makes a table for these words; does nothing if it has them."""
        if not words or list(words) == self.words:
            return
        self.words = list(words)
        self._row = {word: _FIRST_WORD + i for i, word in enumerate(self.words)}
        old = self.table.weight
        self.table = nn.Embedding(_FIRST_WORD + len(words), old.shape[1], device=old.device)

    def load_pretrained(self, state: Mapping[str, Tensor], words: Sequence[str]) -> str:
        """Takes over the weights of another encoder of this shape, word by word.

        Args:
            state: Its entries.
            words: Its vocabulary.

        Returns:
            What was taken, in words.
        """
        own = self.state_dict()
        fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        fits.pop("table.weight", None)
        self.load_state_dict(fits, strict=False)
        rows = {word: _FIRST_WORD + i for i, word in enumerate(words)}
        shared = [word for word in self.words if word in rows]
        given = state["table.weight"].to(self.table.weight)
        with torch.no_grad():
            self.table.weight[:_FIRST_WORD] = given[:_FIRST_WORD]
            for word in shared:
                self.table.weight[self._row[word]] = given[rows[word]]
        return (
            f"{len(fits) + 1} of {len(own)} entries, {len(shared)} of {len(self.words)} words known"
        )

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Embeds captions, (B, 1, E), or (B, 1 + max_words, E) with `word_tokens`."""
        rows, lengths = self._rows(captions)
        h = self.dropout(self.table(rows))
        for norm, layer in zip(self.norms, self.layers, strict=True):
            h = h + layer(norm(h), lengths=lengths)
        h = self.norm(h)
        padding = torch.arange(h.shape[1], device=h.device) >= lengths.unsqueeze(1)
        blank = padding.unsqueeze(-1)
        mean = h.masked_fill(blank, 0).sum(1) / lengths.unsqueeze(1)
        most = h.masked_fill(blank, -torch.inf).amax(1)
        tokens = self.pooled(self.dropout(torch.cat((mean, most), -1))).unsqueeze(1)
        hidden = torch.zeros_like(tokens[..., 0], dtype=torch.bool)
        if self.word is None:
            return tokens, hidden
        spare = self.max_words - h.shape[1]
        words = nn.functional.pad(self.word(h).masked_fill(blank, 0), (0, 0, 0, spare))
        padding = nn.functional.pad(padding, (0, spare), value=True)
        return torch.cat((tokens, words), 1), torch.cat((hidden, padding), 1)

    def _rows(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Rows of the table (B, W), and how many count (B,)."""
        split = [split_words(caption)[: self.max_words] for caption in captions]
        self._warn({word for words in split for word in words})
        found = [[self._row.get(word, _bucket(word)) for word in words] or [0] for words in split]
        device = self.table.weight.device
        lengths = torch.tensor([len(row) for row in found], device=device)
        rows = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in found], batch_first=True)
        rows = rows.to(device)
        if self.training and self.word_dropout:
            strange = (torch.rand(rows.shape, device=device) < self.word_dropout) & (rows > 0)
            rows = torch.where(strange, 1 + rows % _BUCKETS, rows)
        return rows, lengths

    def _warn(self, words: set[str]) -> None:
        strange = sorted(words - self._row.keys() - self._named)
        if not strange:
            return
        self._named.update(strange)
        more = f" and {len(strange) - 8} more" * (len(strange) > 8)
        rank_zero_warn(
            f"Words that the training captions do not have: {', '.join(strange[:8])}{more}. "
            "The text encoder can only guess what they mean."
        )


def split_words(caption: str) -> list[str]:
    """Words of a caption in lower case, as the data modules take them for their vocabulary."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", caption.lower())


def _bucket(word: str) -> int:
    return 1 + zlib.crc32(word.encode()) % _BUCKETS
