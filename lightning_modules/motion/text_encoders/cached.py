"""Text vectors that were computed once: a safetensors file of caption hashes and tokens.

Beside a small network a CLIP tower is half of the work; MDM trains twice as fast without it. The
file holds `hash` (N,) int64, `tokens` (N, M, E) float32 and `mask` (N, M) bool.
"""

import hashlib
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from blocks.errors import SuiteError
from blocks.files import atomic_path, load_foreign
from lightning_modules.motion.text_encoders.text_encoder import TextEncoder

_PROBE = "a person walks forward"
Entry = tuple[Tensor, Tensor]  # Tokens (M, E) and mask (M,).


class CachedText(TextEncoder):
    """Looks captions up in a file; with an encoder behind it, adds those that are not there.

    The first epoch with `encoder` fills the file; later runs can do without the encoder.

    Args:
        path: The `.safetensors` file.
        encoder: Who computes what the file does not have; `null` = such a caption is an error.
    """

    _anchor: Tensor

    def __init__(self, path: str, encoder: TextEncoder | None = None) -> None:
        super().__init__(dim=0)
        self.path, self.encoder = Path(path).expanduser(), encoder
        self._known: dict[int, Entry] | None = None
        self._new = 0
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        if encoder is not None and any(True for _ in encoder.parameters()):
            raise SuiteError(
                expected="a frozen encoder, whose vectors stay what they are",
                found=type(encoder).__name__,
                where="CachedText(encoder=...)",
                cure="cache CLIPText or BERTText; EmbeddedText is trained and needs no cache",
            )

    def prepare(self) -> None:
        """Reads the file, once.

        Raises:
            SuiteError: There is neither file nor encoder, or the file is another's.
        """
        if self._known is not None:
            return
        if self.encoder is not None:
            self.encoder.prepare()
        elif not self.path.is_file():
            raise SuiteError(
                expected="a file of cached text vectors, or an encoder to make it with",
                found="no such file",
                where=str(self.path),
                cure="train an epoch with CachedText(encoder: CLIPText), which writes it",
            )
        self._known = _read(self.path) if self.path.is_file() else {}
        if self._known:
            self.dim = next(iter(self._known.values()))[0].shape[1]
        if self.encoder is not None:
            self._compare(self.encoder)

    def _compare(self, encoder: TextEncoder) -> None:
        """The file must be this encoder's: one caption is computed again."""
        assert self._known is not None
        tokens, mask = (part[0].cpu() for part in encoder([_PROBE]))
        known = self._known.setdefault(caption_hash(_PROBE), (tokens.float(), mask))[0]
        if known.shape == tokens.shape and torch.allclose(known, tokens.float(), atol=1e-2):
            self.dim = encoder.dim
            return
        raise SuiteError(
            expected="vectors that this encoder made",
            found="others: the caption in the file that is computed again comes out differently",
            where=str(self.path),
            cure="give another path, or the encoder with the settings of the file",
        )

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Looks captions up."""
        self.prepare()
        assert self._known is not None
        keys = [caption_hash(caption) for caption in captions]
        missing = {key: text for key, text in zip(keys, captions, strict=True)
                   if key not in self._known}  # fmt: skip
        if missing:
            self._add(missing)
        tokens, mask = zip(*(self._known[key] for key in keys), strict=True)
        device = self._anchor.device
        return torch.stack(tokens).to(device), torch.stack(mask).to(device)

    def save(self) -> None:
        """Writes the file if there is something new; vectors that others wrote since stay in it."""
        if not self._new or self._known is None:
            return
        known = {**(_read(self.path) if self.path.is_file() else {}), **self._known}
        from safetensors.torch import save_file

        tokens, mask = zip(*known.values(), strict=True)
        content = {
            "hash": torch.tensor(list(known)),
            "tokens": torch.stack(tokens),
            "mask": torch.stack(mask),
        }
        with atomic_path(self.path) as temporary:
            save_file(content, temporary, {"format": "pt", "encoder": type(self.encoder).__name__})
        self._new = 0

    def _add(self, missing: dict[int, str]) -> None:
        if self.encoder is None:
            some = next(iter(missing.values()))
            raise SuiteError(
                expected="captions that were cached",
                found=f"{some!r}" + f" and {len(missing) - 1} more" * (len(missing) > 1),
                where=str(self.path),
                cure="give CachedText an encoder, which adds them",
            )
        assert self._known is not None
        tokens, mask = self.encoder(list(missing.values()))
        for key, *entry in zip(missing, tokens.float().cpu(), mask.cpu(), strict=True):
            self._known[key] = (entry[0].clone(), entry[1].clone())
        self._new += len(missing)


class TextCacheWriter(Callback):
    """Writes what a `CachedText` has added, after each epoch, from the first process."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes."""
        self._write(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keeps the work of a run that was stopped."""
        self._write(trainer, pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        encoder = getattr(module, "text_encoder", None)
        if trainer.is_global_zero and isinstance(encoder, CachedText):
            encoder.save()


def caption_hash(caption: str) -> int:
    """63 bits of a caption's SHA-256, outer blanks left out."""
    digest = hashlib.sha256(caption.strip().encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _read(path: Path) -> dict[int, Entry]:
    content = load_foreign(path)
    if not isinstance(content, dict) or content.keys() != {"hash", "tokens", "mask"}:
        raise SuiteError(
            expected="hash, tokens and mask of cached captions",
            found=", ".join(map(str, content)) if isinstance(content, dict) else "something else",
            where=str(path),
            cure="give another path; CachedText with an encoder writes such a file",
        )
    entries = zip(content["tokens"], content["mask"], strict=True)
    return dict(zip(content["hash"].tolist(), entries, strict=True))
