"""Tiny towers with random weights, in the files of the real ones."""

import json
import string
from pathlib import Path

import torch
from torch import Tensor


def write_tokenizer(folder: Path) -> int:
    """CLIP's byte-pair tokenizer that knows letters alone; its number of tokens."""
    letters = list(string.ascii_lowercase)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1]}
    special |= {"pad_token": tokens[-1], "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return len(tokens)


def write_clip(folder: Path, width: int = 16, projected: int = 16) -> Path:
    """A folder as Hugging Face has it."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    folder.mkdir()
    vocabulary = write_tokenizer(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=32, projection_dim=projected,
        num_hidden_layers=2, num_attention_heads=max(width // 64, 1), max_position_embeddings=77,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
    )  # fmt: skip
    model = CLIPTextModelWithProjection(config)
    with torch.no_grad():  # The small start of so narrow a model would hide mistakes.
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 4)
    model.save_pretrained(folder)
    return folder


def write_bert(folder: Path, distilled: bool = False) -> Path:
    """A folder of BERT, or of DistilBERT."""
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "person", "walks", "runs"]
    (folder / "vocab.txt").write_text("\n".join(words))
    kind = "DistilBertTokenizer" if distilled else "BertTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    torch.manual_seed(0)
    if distilled:
        small = DistilBertConfig(vocab_size=9, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
        DistilBertModel(small).save_pretrained(folder)
    else:
        config = BertConfig(
            vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
    return folder


def openai_entries(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries of a Hugging Face tower under OpenAI's names, written down on their own."""
    start = "text_model."
    found = {
        "token_embedding.weight": state[f"{start}embeddings.token_embedding.weight"],
        "positional_embedding": state[f"{start}embeddings.position_embedding.weight"],
        "ln_final.weight": state[f"{start}final_layer_norm.weight"],
        "ln_final.bias": state[f"{start}final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "logit_scale": torch.tensor(4.6),
        "visual.proj": torch.zeros(2, 2),
    }
    for i in range(2):
        theirs, ours = f"{start}encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            qkv = [state[f"{theirs}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            found[f"{ours}.attn.in_proj_{kind}"] = torch.cat(qkv)
            found[f"{ours}.attn.out_proj.{kind}"] = state[f"{theirs}.self_attn.out_proj.{kind}"]
            found[f"{ours}.mlp.c_fc.{kind}"] = state[f"{theirs}.mlp.fc1.{kind}"]
            found[f"{ours}.mlp.c_proj.{kind}"] = state[f"{theirs}.mlp.fc2.{kind}"]
            for norm in "12":
                found[f"{ours}.ln_{norm}.{kind}"] = state[f"{theirs}.layer_norm{norm}.{kind}"]
    return found
