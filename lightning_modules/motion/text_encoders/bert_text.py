"""BERT or DistilBERT, frozen, from a local folder: one token for each piece of a word.

MDM's decoder with DistilBERT looks at all of them, with padding hidden; the first, [CLS], stands
for the whole text.
"""

from typing import Any

from torch import Tensor, nn

from lightning_modules.motion.text_encoders.frozen import FrozenText, local_folder


class BERTText(FrozenText):
    """Last hidden states of a BERT-like encoder, (B, max_length, E).

    Args:
        path: Folder in Hugging Face's layout: `config.json`, weights and tokenizer.
        max_length: Tokens kept of a caption, [CLS] and [SEP] included; shorter ones are filled up.
    """

    def __init__(self, path: str, max_length: int = 32) -> None:
        super().__init__()
        self.path, self.max_length = path, max_length
        self._tokenizer: Any = None

    def _load(self) -> tuple[nn.Module, int]:
        from transformers import AutoModel, AutoTokenizer

        folder = local_folder(self.path, "config.json", "BERT or DistilBERT")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tower: Any = AutoModel.from_pretrained(folder, local_files_only=True)
        return tower, int(tower.config.hidden_size)

    def _embed(self, tower: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
        given = self._tokenizer(
            captions, padding="max_length", truncation=True, max_length=self.max_length,
            return_tensors="pt",
        )  # fmt: skip
        ids, valid = (
            given[name].to(self._anchor.device) for name in ("input_ids", "attention_mask")
        )
        tokens: Tensor = tower(input_ids=ids, attention_mask=valid).last_hidden_state
        padding = valid == 0
        return tokens.masked_fill(padding.unsqueeze(-1), 0), padding
