"""The residual block of Mamba and Vim: Add -> Norm -> Mixer."""

import torch
from torch import Tensor, nn

from blocks.drop_path import DropPath
from blocks.norm import RMSNorm


class ResidualBlock(nn.Module):
    """Adds the previous block's output to the residual stream, normalises it and mixes it.

    Shapes (B, L, E). The addition comes first, so the last block's output must still be added by
    the network (source: state-spaces/mamba, hustvl/Vim). Keys: `norm.*`, `mixer.*`.

    Args:
        mixer: Maps (B, L, E) to (B, L, E); must take `lengths` if the block is given any.
        norm: Normalises the residual stream, e.g. `RMSNorm(dim)`.
        drop_path: Probability of dropping the incoming hidden state of a sample, in [0, 1); it
            belongs to the output of the block before, so the first block skips it.
        residual_in_fp32: Whether the residual stream is kept in float32 whatever the precision.
    """

    def __init__(
        self,
        mixer: nn.Module,
        norm: RMSNorm | nn.LayerNorm,
        drop_path: float = 0.0,
        residual_in_fp32: bool = True,
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = norm
        self.drop_path = DropPath(drop_path)
        self.residual_in_fp32 = residual_in_fp32

    def forward(
        self, hidden: Tensor, residual: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs one block.

        Args:
            hidden: Output of the block before, (B, L, E).
            residual: Stream of the block before; None on the first block.
            lengths: Valid steps per sample, (B,), for mixers that take them.

        Returns:
            The mixer's output, and the residual stream to hand to the next block.
        """
        residual = hidden if residual is None else residual + self.drop_path(hidden)
        if self.residual_in_fp32:
            residual = residual.to(torch.promote_types(residual.dtype, torch.float32))
        # A network cast to 16 bit as a whole keeps its residual wide and its layers narrow.
        normed = self.norm(residual.to(self.norm.weight.dtype))
        mixed = self.mixer(normed) if lengths is None else self.mixer(normed, lengths=lengths)
        return mixed, residual
