"""The "ViT-S" of cross-view retrieval: an early model of timm, twice as wide as its successor.

768 channels, 8 blocks of 8 heads, MLPs of ratio 3, no bias in qkv, and products scaled by the
model's width instead of the head's. Dmmm1997/FSRA calls it VIT-S and starts from timm's file
`vit_small_p16_224-15ec54c9.pth`; keys and numbers here are of that file. Today's small ViT, 384
wide, is `timm_network` with `vit_small_patch16_224`.
"""

from torch import nn

from blocks import drop_path_rates
from blocks.self_attention import SelfAttention
from lightning_modules.vision.networks.attention_block import AttentionBlock, initialise_blocks
from lightning_modules.vision.networks.patch_embed import Size
from lightning_modules.vision.networks.patch_encoder import PatchEncoder


class LegacyViT(PatchEncoder):
    """Classifier and backbone; the class token comes first.

    Args:
        img_size: Height and width of the images in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        stride: Step between patches in pixels; `null` = `patch_size`, less for overlapping patches.
        dim: Width of a token.
        depth: Number of blocks.
        num_heads: Heads of the attention.
        mlp_ratio: Inner width of each MLP as a multiple of `dim`.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        in_chans: Channels of the images.
        norm_eps: Added to the norms' variance.
        drop_path: Stochastic depth rate of the last block, growing linearly from 0.
        drop_rate: Dropout after the position embedding.
        pretrained_stride: Stride of weights to start from, where it differs from `stride`; they
            are refused otherwise, as far as the number of their positions betrays it.
        dynamic_img_size: Accept images of any size, resizing the positions at each forward.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its
            activations: less memory, about a third more time.
    """

    def __init__(
        self,
        img_size: Size = 256,
        patch_size: int = 16,
        stride: int | None = None,
        dim: int = 768,
        depth: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 3.0,
        num_classes: int | None = 1000,
        in_chans: int = 3,
        norm_eps: float = 1e-6,
        drop_path: float = 0.1,
        drop_rate: float = 0.0,
        pretrained_stride: int | None = None,
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
            class_token="first",
            drop_rate=drop_rate,
            pretrained_stride=pretrained_stride,
            dynamic_img_size=dynamic_img_size,
            grad_checkpointing=grad_checkpointing,
        )
        self.blocks = nn.ModuleList(
            AttentionBlock(
                dim,
                # The width of the model, not of a head, as the weights were trained.
                SelfAttention(dim, num_heads, scale=dim**-0.5),
                mlp_ratio,
                rate,
                norm_eps,
            )
            for rate in drop_path_rates(depth, drop_path)
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        initialise_blocks(self.blocks)
        self._initialise_embedding()
