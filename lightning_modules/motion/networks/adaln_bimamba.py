"""A denoiser of bidirectional Mamba blocks, each told the time and the text in two ways; ours.

    c     = time + first text token
    block:  x = x + gate (c) * BiMamba(modulated(norm x; c))
            x = x + attention(norm x -> text tokens)
            x = x + gate (c) * mlp(modulated(norm x; c))

In CMDM conditions are the first tokens of the sequence, and a scan has forgotten them after some
frames. Here c scales and shifts every layer, starting as the identity (AdaLN-Zero; Peebles and
Xie, 2023), through one projection for all blocks (PixArt-alpha; Chen et al., 2023); words reach
each frame by cross-attention. Frames are scanned within their length, so padding changes nothing,
and there are no positions: any number of frames will do.

Axes: B samples, L frames, D features, E width, M text tokens.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from blocks import BiMamba, DropPath, Recorded
from blocks.mlp import Mlp
from lightning_modules.motion.networks.cmdm import TimeEmbedding

# Shift, scale and gate, of the mixer and of the MLP.
_MODULATIONS = 6


class AdaLNBiMamba(Recorded, nn.Module):
    """Predicts clean motion from noisy motion, time and text.

    Args:
        in_features: Features D of a frame: 263 in HumanML3D, 251 in KIT-ML.
        dim: Width E.
        depth: Blocks.
        num_heads: Heads of the attention to the text.
        dim_feedforward: Inner width of the MLPs.
        dropout: In MLPs and attention.
        drop_path: Probability of dropping a branch of a block for a sample.
        d_state: States per channel of the scans.
        d_conv: Width of their convolutions.
        expand: Their inner width as a multiple of E.
        text_dim: Width of the text tokens, of which the first stands for the whole text.
    """

    contact: ClassVar[Literal["none", "points"]] = "none"
    sees_padding: ClassVar[bool] = False

    def __init__(
        self,
        in_features: int = 263,
        dim: int = 384,
        depth: int = 5,
        num_heads: int = 6,
        dim_feedforward: int = 480,
        dropout: float = 0.1,
        drop_path: float = 0.05,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        text_dim: int = 512,
    ) -> None:
        super().__init__()
        self.in_features, self.text_dim = in_features, text_dim
        self.motion_adapter = nn.Linear(in_features, dim)
        self.language_adapter = nn.Linear(text_dim, dim)
        self.timestep_embedder = TimeEmbedding(dim, dim)
        to_modulation = nn.Linear(dim, _MODULATIONS * dim)
        nn.init.zeros_(to_modulation.weight)
        nn.init.zeros_(to_modulation.bias)
        self.modulation = nn.Sequential(nn.SiLU(), to_modulation)
        self.blocks = nn.ModuleList(
            ModulatedBlock(
                BiMamba(dim, d_state, d_conv, expand, backward_dt_init="matched"),
                nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True),
                Mlp(dim, dim_feedforward, dropout),
                dim,
                drop_path,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.final = nn.Parameter(torch.zeros(2, dim))
        self.motion_layer = nn.Linear(dim, in_features)

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
            text: Embedding (B, text_dim), or of tokens (B, M, text_dim).
            padding_mask: True at padding, (B, L).
            text_mask: True at padding among text tokens, (B, M).
            erase_text: Samples whose text becomes zeros, (B,) booleans.

        Returns:
            Clean motion, (B, L, D); what it holds at padding has no meaning.
        """
        text = text if text.dim() == 3 else text.unsqueeze(1)
        if erase_text is not None:
            text = text.masked_fill(erase_text.view(-1, 1, 1), 0)
        words = self.language_adapter(text)
        condition = self.timestep_embedder(time) + words[:, :1]
        modulation = self.modulation(condition).unflatten(-1, (_MODULATIONS, -1))
        lengths = None if padding_mask is None else (~padding_mask).sum(1)
        h = self.motion_adapter(x)
        for block in self.blocks:
            h = block(h, modulation, words, lengths, text_mask)
        shift, scale = (self.final + condition).unbind(-2)
        out: Tensor = self.motion_layer(
            _modulated(self.norm(h), shift.unsqueeze(1), scale.unsqueeze(1))
        )
        return out


class ModulatedBlock(nn.Module):
    """Mixer, attention to the text and MLP, on (B, L, E).

    Args:
        mixer: Maps (B, L, E) to (B, L, E) and takes `lengths`.
        attention: From frames to text tokens.
        mlp: Maps (B, L, E) to (B, L, E).
        dim: Width E.
        drop_path: Probability of dropping a branch for a sample.
    """

    def __init__(
        self,
        mixer: nn.Module,
        attention: nn.MultiheadAttention,
        mlp: nn.Module,
        dim: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.mixer, self.attention, self.mlp = mixer, attention, mlp
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim, elementwise_affine=False)
        # What this block adds to the modulation that all share.
        self.modulation = nn.Parameter(torch.zeros(_MODULATIONS, dim))
        self.drop_path = DropPath(drop_path)
        nn.init.zeros_(attention.out_proj.weight)

    def no_weight_decay(self) -> set[str]:
        """The modulation is an offset, not a weight."""
        return {"modulation"}

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        words: Tensor,
        lengths: Tensor | None,
        text_mask: Tensor | None,
    ) -> Tensor:
        """Runs the block.

        Args:
            x: (B, L, E).
            modulation: Shared part, (B, 1, 6, E).
            words: Text tokens, (B, M, E).
            lengths: Valid frames, (B,).
            text_mask: True at padding among the text tokens, (B, M).
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + modulation).unbind(-2)
        h = self.mixer(_modulated(self.norm1(x), shift1, scale1), lengths=lengths)
        x = x + self.drop_path(gate1 * h)
        h = self.norm2(x)
        x = x + self.drop_path(
            self.attention(h, words, words, key_padding_mask=text_mask, need_weights=False)[0]
        )
        h = self.mlp(_modulated(self.norm3(x), shift2, scale2))
        out: Tensor = x + self.drop_path(gate2 * h)
        return out


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
