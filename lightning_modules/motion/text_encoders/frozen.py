"""Towers of others that never train: no checkpoint, optimiser or average sees them."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError
from lightning_modules.motion.text_encoders.text_encoder import TextEncoder


class FrozenText(TextEncoder):
    """Base of encoders whose weights lie in a local folder.

    The tower is not registered as a part, stays in evaluation mode, and computes in float32
    whatever the precision around it. It follows the module to its device.
    """

    _anchor: Tensor

    def __init__(self) -> None:
        super().__init__(dim=0)
        self._held: list[nn.Module] = []
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    @abstractmethod
    def _load(self) -> tuple[nn.Module, int]:
        """The tower, and the width of its tokens."""

    @abstractmethod
    def _embed(self, tower: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens and mask of captions."""

    def prepare(self) -> None:
        """Loads the tower, once.

        Raises:
            SuiteError: The folder is not there, or holds something else.
        """
        if not self._held:
            tower, self.dim = self._load()
            self._held.append(tower.requires_grad_(False).eval().float().to(self._anchor.device))

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Embeds captions without gradient."""
        self.prepare()
        with torch.no_grad(), torch.autocast(self._anchor.device.type, enabled=False):
            tokens, mask = self._embed(self._held[0], captions)
        return tokens, mask

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves with the module; what `fn` makes of its numbers' type is not followed."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for tower in self._held:
            tower.to(self._anchor.device)
        return self


def local_folder(path: str, needed: str, what: str) -> Path:
    """A folder in Hugging Face's layout.

    Args:
        path: Where it should be; nothing is downloaded.
        needed: A file that must be in it.
        what: What it should hold, for the error.

    Raises:
        SuiteError: It is not there.
    """
    folder = Path(path).expanduser()
    if not (folder / needed).is_file():
        raise SuiteError(
            expected=f"a folder with {what}: {needed} and its neighbours",
            found="no such folder" if not folder.is_dir() else f"a folder without {needed}",
            where=str(folder),
            cure="download it once on a machine with a network, such as with `hf download`, and "
            "give the folder; or use EmbeddedText, which needs no files",
        )
    return folder
