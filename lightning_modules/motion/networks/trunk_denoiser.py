"""A denoiser around a trunk: the least that makes tokens of noisy frames, time and text.

Axes: B samples, L frames, D features, M text tokens, E width.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_modules.motion.networks.cmdm import TimeEmbedding
from lightning_modules.trunk import TrunkNetwork


class TrunkDenoiser(TrunkNetwork):
    """Noisy motion to clean motion: a token for each frame, and one before them for time and text.

    The first token stands at both ends, for a scan forgets what it saw long ago.

    Args:
        in_features: Features D of a frame: 263 in HumanML3D, 251 in KIT-ML.
        text_dim: Width of the text embedding.
        dim: Width E of the trunk.
        trunk: Of its own; None borrows that of `CoTraining`.
    """

    contact: ClassVar[Literal["none", "points"]] = "none"
    sees_padding: ClassVar[bool] = False

    def __init__(
        self,
        in_features: int = 263,
        text_dim: int = 512,
        dim: int = 192,
        trunk: nn.Module | None = None,
    ) -> None:
        super().__init__(dim, trunk)
        self.in_features, self.text_dim = in_features, text_dim
        self.motion_adapter = nn.Linear(in_features, dim)
        self.language_adapter = nn.Linear(text_dim, dim)
        self.timestep_embedder = TimeEmbedding(dim, dim)
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
            time: Step of the diffusion, (B,).
            text: Tokens of the text, (B, M, text_dim), of which the first stands for all of it.
            padding_mask: True at padding, (B, L).
            text_mask: Not used: there is one token.
            erase_text: Samples whose text counts as empty, (B,) booleans.

        Returns:
            Clean motion, (B, L, D).
        """
        sentence = text[:, :1]
        if erase_text is not None:
            sentence = sentence.masked_fill(erase_text.view(-1, 1, 1), 0)
        condition = self.timestep_embedder(time).view(len(x), 1, -1)
        condition = condition + self.language_adapter(sentence)
        batch, frames = x.shape[:2]
        lengths = torch.full((batch,), frames, device=x.device)
        if padding_mask is not None:
            lengths = frames - padding_mask.sum(1)
        tokens = torch.cat((condition, self.motion_adapter(x), torch.zeros_like(condition)), 1)
        last = (torch.arange(batch, device=x.device), lengths + 1)
        tokens = tokens.index_put(last, condition[:, 0])
        out: Tensor = self.motion_layer(self.mixed(tokens, lengths + 2)[:, 1:-1])
        return out
