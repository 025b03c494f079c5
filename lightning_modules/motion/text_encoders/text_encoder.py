"""What every text encoder offers: captions in, tokens out, the first of them the whole caption.

    encoder(captions: list of B) -> embedding (B, M, E), mask (B, M) True at padding

M is fixed: 1, or 1 + `max_words` where words have tokens of their own. So what a caption becomes
does not depend on the captions beside it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from blocks import Recorded


class TextEncoder(Recorded, nn.Module, ABC):
    """Base of the text encoders.

    Args:
        dim: Width E of the tokens; 0 where a file will tell.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Embeds captions.

        Args:
            captions: B texts.

        Returns:
            Embedding (B, M, E), and a mask (B, M), True at padding.
        """

    def adopt_words(self, words: Sequence[str]) -> None:
        """Takes over the vocabulary of the training captions, for encoders that learn it."""

    def prepare(self) -> None:
        """Loads what lies in files, so that a missing one is found before training starts."""
