"""MDM, the human motion diffusion model (Tevet et al., 2023), the baseline of text-to-motion.

    condition = embed_text(text) + time
    trans_enc   Transformer layers over [condition, motion ...] + positions
    trans_dec   layers over ([time,] motion ...) + positions that also look at the condition, one
                token a word

Keys are those of GuyTevet/motion-diffusion-model, `model/mdm.py`.
Axes: B samples, L frames, D features, E width, M text tokens.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from blocks.weights import load_weights, read_state_dict
from lightning_modules.motion.networks.cmdm import Positions, TimeEmbedding

Arch = Literal["trans_enc", "trans_dec"]
_TEXT_WIDTHS = {"clip": 512, "bert": 768}
_FEATURES = {"humanml": 263, "kit": 251}


class MDM(Recorded, nn.Module):
    """Predicts clean motion from noisy motion, time and text.

    Args:
        in_features: Features D of a frame: 263 in HumanML3D, 251 in KIT-ML.
        dim: Width E.
        arch: `trans_enc`, or `trans_dec`, which looks at the text's tokens.
        depth: Transformer layers.
        num_heads: Attention heads.
        dim_feedforward: Inner width of the MLPs.
        dropout: In the layers and after the positions.
        mask_frames: Whether attention leaves padding out; the first published models look at it.
        time_token: Whether `trans_dec` has time as a frame of its own too.
        text_dim: Width of the text embedding: 512 of CLIP, 768 of (Distil)BERT.
    """

    contact: ClassVar[Literal["none", "points"]] = "none"

    def __init__(
        self,
        in_features: int = 263,
        dim: int = 512,
        arch: Arch = "trans_enc",
        depth: int = 8,
        num_heads: int = 4,
        dim_feedforward: int = 1024,
        dropout: float = 0.1,
        mask_frames: bool = True,
        time_token: bool = False,
        text_dim: int = 512,
    ) -> None:
        super().__init__()
        self.in_features, self.text_dim, self.arch = in_features, text_dim, arch
        self.mask_frames, self.time_token = mask_frames, time_token
        self.sees_padding = not mask_frames
        self.input_process = _Projection("poseEmbedding", in_features, dim)
        self.sequence_pos_encoder = Positions(dim, dropout)
        layer: dict[str, Any] = {
            "d_model": dim, "nhead": num_heads, "dim_feedforward": dim_feedforward,
            "dropout": dropout, "activation": "gelu", "batch_first": True,
        }  # fmt: skip
        if arch == "trans_enc":
            first = nn.TransformerEncoderLayer(**layer)
            # Nested tensors would return zeros at padding in evaluation, and only there.
            self.seqTransEncoder = nn.TransformerEncoder(first, depth, enable_nested_tensor=False)
        else:
            self.seqTransDecoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), depth)
        self.embed_timestep = TimeEmbedding(dim, dim)
        self.embed_text = nn.Linear(text_dim, dim)
        self.output_process = _Projection("poseFinal", dim, in_features)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the network from upstream's `args.json`, or the `config` of a golden vector.

        Upstream's files hold all arguments of its programs; those that describe no network, such
        as the learning rate, are left aside.

        Raises:
            SuiteError: A form of the network that is not built here.
        """
        if config.get("arch", "trans_enc") not in ("trans_enc", "trans_dec"):
            raise SuiteError(
                expected="arch trans_enc or trans_dec",
                found=str(config["arch"]),
                where="MDM.from_upstream",
                cure="upstream's gru is not built here",
            )
        names = {
            "input_feats": "in_features", "latent_dim": "dim", "arch": "arch",
            "num_layers": "depth", "layers": "depth",
            "num_heads": "num_heads", "heads": "num_heads",
            "ff_size": "dim_feedforward", "dropout": "dropout", "mask_frames": "mask_frames",
            "emb_trans_dec": "time_token", "clip_dim": "text_dim",
        }  # fmt: skip
        ours = {names[key]: value for key, value in config.items() if key in names}
        if "dataset" in config:
            ours.setdefault("in_features", _FEATURES.get(config["dataset"], 263))
        ours.setdefault("text_dim", _TEXT_WIDTHS[config.get("text_encoder_type", "clip")])
        ours.setdefault("mask_frames", False)  # The option is younger than the first models.
        return cls(**ours)

    @classmethod
    def from_published(
        cls, path: str | Path, weights: Literal["model", "model_ema"] = "model"
    ) -> Self:
        """Builds and loads a published model from its weights and the `args.json` beside them.

        Args:
            path: `model000475000.pt` or the like.
            weights: `model`, or the average, which upstream calls `model_avg`.

        Raises:
            SuiteError: There is no `args.json`, or the weights are of another network.
        """
        arguments = Path(path).parent / "args.json"
        if not arguments.is_file():
            raise SuiteError(
                expected="args.json beside the weights, as upstream stores it",
                found="no such file",
                where=str(arguments),
                cure="copy it there, or build MDM(...) and give the file as `pretrained`",
            )
        network = cls.from_upstream(json.loads(arguments.read_text()))
        state = network.adapt_state_dict(read_state_dict(path, weights))
        rank_zero_info(str(load_weights(network, state, source=str(path))))
        return network

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Leaves out the tables of sinusoids and a text tower that published files may carry."""
        dropped = ("clip_model.", "bert_model.")
        return {
            key: value
            for key, value in state.items()
            if not key.startswith(dropped) and not key.endswith("pos_encoder.pe")
        }

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor,
        padding_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        erase_text: Tensor | None = None,
    ) -> Tensor:
        """Predicts clean motion.

        Args:
            x: Noisy motion, (B, L, D).
            time: Step of the diffusion, (B,), 0 to 999.
            text: Embedding (B, text_dim), or of tokens (B, M, text_dim); `trans_enc` takes one.
            padding_mask: True at padding, (B, L).
            text_mask: True at padding among text tokens, (B, M).
            erase_text: Samples whose text becomes zeros, (B,) booleans.

        Returns:
            Clean motion, (B, L, D); what it holds at padding has no meaning.
        """
        text = text if text.dim() == 3 else text.unsqueeze(1)
        if erase_text is not None:
            text = text.masked_fill(erase_text.view(-1, 1, 1), 0)
        moment = self.embed_timestep(time)
        condition = self.embed_text(text) + moment
        leading = self._leading(condition, moment)
        first = leading.shape[1]
        h = torch.cat((leading, self.input_process(x)), 1)
        h = self.sequence_pos_encoder(h)
        mask = None
        if self.mask_frames and padding_mask is not None:
            mask = nn.functional.pad(padding_mask, (first, 0))
        if self.arch == "trans_enc":
            h = self.seqTransEncoder(h, src_key_padding_mask=mask)
        else:
            h = self.seqTransDecoder(
                h, condition, tgt_key_padding_mask=mask, memory_key_padding_mask=text_mask
            )
        out: Tensor = self.output_process(h[:, first:])
        return out

    def _leading(self, condition: Tensor, moment: Tensor) -> Tensor:
        """Tokens before the motion."""
        if self.arch == "trans_dec":
            return moment if self.time_token else moment[:, :0]
        if condition.shape[1] != 1:
            raise SuiteError(
                expected="one text token, for trans_enc",
                found=f"{condition.shape[1]}",
                where="MDM.forward",
                cure="use arch: trans_dec, or a text encoder without word_tokens",
            )
        return condition


class _Projection(nn.Module):
    """A linear layer under upstream's name for it."""

    def __init__(self, name: str, dim: int, out: int) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, nn.Linear(dim, out))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.get_submodule(self._name)(x)
        return out
