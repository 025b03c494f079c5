"""The text tower of CLIP (Radford et al., 2021), frozen, from local files.

From a folder in Hugging Face's layout, or a state dict of OpenAI's or open_clip's, whose keys are
translated here. A caption is cut to 20 BPE tokens between start and end, as in MDM; attention is
causal, so what follows the end cannot matter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.weights import load_weights, read_state_dict
from lightning_modules.motion.text_encoders.frozen import FrozenText, local_folder

_HEAD_WIDTH = 64
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class CLIPText(FrozenText):
    """One token: the projected embedding at the end of the text; with words, their states as well.

    Args:
        path: Folder with `config.json`, weights and tokenizer; or a `.pt`, `.bin` or `.safetensors`
            state dict of OpenAI or open_clip.
        tokenizer: Folder with `vocab.json` and `merges.txt`; `null` = beside the weights.
        max_length: BPE tokens kept of a caption, beside start and end.
        word_tokens: Whether each BPE token has a token of its own.
        activation: Of a state dict: `quick_gelu` in OpenAI's, `gelu` in most of open_clip's.
    """

    def __init__(
        self,
        path: str,
        tokenizer: str | None = None,
        max_length: int = 20,
        word_tokens: bool = False,
        activation: Literal["quick_gelu", "gelu"] = "quick_gelu",
    ) -> None:
        super().__init__()
        self.path, self.tokenizer_path = path, tokenizer
        self.max_length, self.word_tokens, self.activation = max_length, word_tokens, activation
        self._tokenizer: Any = None

    def _load(self) -> tuple[nn.Module, int]:
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        path = Path(self.path).expanduser()
        tower: Any
        if path.suffix in {".pt", ".pth", ".bin", ".safetensors"}:
            tower, beside = _from_state_dict(path, self.activation), path.parent
        else:
            beside = local_folder(self.path, "config.json", "CLIP's text tower")
            tower = CLIPTextModelWithProjection.from_pretrained(beside, local_files_only=True)
        words = local_folder(self.tokenizer_path or str(beside), "vocab.json", "CLIP's tokenizer")
        self._tokenizer = CLIPTokenizer.from_pretrained(words, local_files_only=True)
        config = tower.config
        if self.word_tokens and config.hidden_size != config.projection_dim:
            raise SuiteError(
                expected="words as wide as the projected embedding",
                found=f"{config.hidden_size} and {config.projection_dim}",
                where="CLIPText(word_tokens=True)",
                cure="use a CLIP with both alike, such as ViT-B/32, or word_tokens: false",
            )
        return tower, int(config.projection_dim)

    def _embed(self, tower: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
        given = self._tokenizer(
            captions, padding="max_length", truncation=True, max_length=self.max_length + 2,
            return_tensors="pt",
        )  # fmt: skip
        ids, valid = (
            given[name].to(self._anchor.device) for name in ("input_ids", "attention_mask")
        )
        out = tower(input_ids=ids)
        tokens = out.text_embeds.unsqueeze(1)
        hidden = torch.zeros_like(tokens[..., 0], dtype=torch.bool)
        if not self.word_tokens:
            return tokens, hidden
        padding = valid == 0
        words = out.last_hidden_state.masked_fill(padding.unsqueeze(-1), 0)
        return torch.cat((tokens, words), 1), torch.cat((hidden, padding), 1)


def _from_state_dict(path: Path, activation: str) -> nn.Module:
    """A tower from the weights of a whole CLIP, sizes read off their shapes."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    state = read_state_dict(path)
    prefix = "text." if "text.token_embedding.weight" in state else ""
    text = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    needed = ("token_embedding.weight", "positional_embedding", "text_projection")
    if lacking := [key for key in needed if key not in text]:
        raise SuiteError(
            expected="a state dict of CLIP as OpenAI and open_clip store it",
            found=f"no {', '.join(lacking)} in it",
            where=str(path),
            cure="give a Hugging Face folder instead, or the file of the whole CLIP",
        )
    (vocabulary, width), positions = (
        text["token_embedding.weight"].shape,
        len(text["positional_embedding"]),
    )
    layers = {key.split(".")[2] for key in text if key.startswith("transformer.resblocks.")}
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=len(text["transformer.resblocks.0.mlp.c_fc.weight"]),
        projection_dim=text["text_projection"].shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=max(width // _HEAD_WIDTH, 1),
        max_position_embeddings=positions,
        hidden_act=activation,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    tower = CLIPTextModelWithProjection(config)
    load_weights(tower, translated(text), source=str(path))
    return tower


def translated(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of OpenAI's text tower under the names of transformers.

    Args:
        text: Entries, image tower included or not.
    """
    start = "text_model."
    names = {
        "token_embedding.weight": f"{start}embeddings.token_embedding.weight",
        "positional_embedding": f"{start}embeddings.position_embedding.weight",
        "ln_final.weight": f"{start}final_layer_norm.weight",
        "ln_final.bias": f"{start}final_layer_norm.bias",
    }
    found = {names[key]: text[key].float() for key in names}
    found["text_projection.weight"] = text["text_projection"].float().T.contiguous()
    for key, value in text.items():
        if not key.startswith("transformer.resblocks."):
            continue
        number, inner = key.removeprefix("transformer.resblocks.").split(".", 1)
        layer = f"{start}encoder.layers.{number}."
        if inner.startswith("attn.in_proj_"):
            kind = inner.removeprefix("attn.in_proj_")
            for name, part in zip("qkv", value.float().chunk(3), strict=True):
                found[f"{layer}self_attn.{name}_proj.{kind}"] = part
        else:
            module, _, kind = inner.rpartition(".")
            found[f"{layer}{_LAYER[module]}.{kind}"] = value.float()
    return found
