"""Vim with attention and a gate for its scans: the honest name of "MAMBA-S" (see `GatedAttention`).

    x = patches + class token + positions            (B, M + 1, D)
    x = x + drop_path(mixer(norm(x)))                depth times
    logits = head(norm(x)[class token])

As in Vim, a block is a norm and a mixer, without MLP. No weights are published for this form.
"""

from torch import nn

from blocks import drop_path_rates
from blocks.gated_attention import GatedAttention
from lightning_modules.vision.networks.attention_block import AttentionBlock, initialise_blocks
from lightning_modules.vision.networks.class_tokens import ClassToken
from lightning_modules.vision.networks.patch_embed import Size
from lightning_modules.vision.networks.patch_encoder import PatchEncoder


class GatedAttentionEncoder(PatchEncoder):
    """Classifier and backbone of gated attention.

    Args:
        img_size: Height and width of the images in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        stride: Step between patches in pixels; `null` = `patch_size`, less for overlapping patches.
        dim: Width of a token.
        depth: Number of blocks.
        expand: Inner width of the attention as a multiple of `dim`.
        mlp_ratio: Inner width of each block's MLP as a multiple of `dim`; 0 = no MLP.
        fused: Compute attention without keeping the matrix of all pairs of tokens.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        in_chans: Channels of the images.
        class_token: `middle` at index M // 2, `first` at 0, `double` at both ends, or `none`,
            which averages the patches.
        drop_path: Stochastic depth rate of the last block, growing linearly from 0.
        drop_rate: Dropout after the position embedding.
        dynamic_img_size: Accept images of any size, resizing the positions at each forward.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its
            activations: less memory, about a third more time.
    """

    def __init__(
        self,
        img_size: Size = 224,
        patch_size: int = 16,
        stride: int | None = None,
        dim: int = 384,
        depth: int = 24,
        expand: float = 1.0,
        mlp_ratio: float = 0.0,
        fused: bool = True,
        num_classes: int | None = 1000,
        in_chans: int = 3,
        class_token: ClassToken = "first",
        drop_path: float = 0.1,
        drop_rate: float = 0.0,
        dynamic_img_size: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            stride=stride,
            dim=dim,
            num_classes=num_classes,
            in_chans=in_chans,
            class_token=class_token,
            drop_rate=drop_rate,
            dynamic_img_size=dynamic_img_size,
            grad_checkpointing=grad_checkpointing,
        )
        self.blocks = nn.ModuleList(
            AttentionBlock(dim, GatedAttention(dim, expand, fused=fused), mlp_ratio, rate)
            for rate in drop_path_rates(depth, drop_path)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        initialise_blocks(self.blocks)
        self._initialise_embedding()
