"""2-D selective scans at one resolution: the "MAMBA-V2" that seed 001 compares with ViT.

As ViT, but a patch learns of the others by four scans over the grid instead of attention:

    x = patches + positions                     (B, rows, columns, D)
    x = block_l(x)                              VSS blocks of VMamba (arXiv 2401.10166)
    logits = head(mean over positions of norm(x))

No class token: a grid has no place for one. No weights are published for this form.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_
from torch.utils.checkpoint import checkpoint

from blocks import Recorded, drop_path_rates
from blocks.errors import SuiteError
from blocks.positions import Grid, resize_position_table
from lightning_modules.vision.networks.intermediates import chosen_indices
from lightning_modules.vision.networks.patch_embed import PatchEmbed, Size
from lightning_modules.vision.networks.vss_block import GridNorm, VSSBlock, initialise_linears


class IsotropicSS2D(Recorded, nn.Module):
    """Classifier and backbone of VSS blocks over one grid of patches.

    Args:
        img_size: Height and width of the images in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        stride: Step between patches in pixels; `null` = `patch_size`, less for overlapping patches.
        dim: Width of a patch token.
        depth: Number of blocks.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        in_chans: Channels of the images.
        d_state: States per channel of the scan.
        ssm_ratio: Inner width of the scan as a multiple of `dim`.
        conv_bias: Whether the convolution before the scan has a bias.
        forward_type: Form of the scan, see `blocks.forward_type`.
        mlp_ratio: Inner width of each block's MLP as a multiple of `dim`; 0 = no MLP.
        drop_path: Stochastic depth rate of the last block, growing linearly from 0.
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
        depth: int = 8,
        num_classes: int | None = 1000,
        in_chans: int = 3,
        d_state: int = 16,
        ssm_ratio: float = 2.0,
        conv_bias: bool = True,
        forward_type: str = "v0",
        mlp_ratio: float = 0.0,
        drop_path: float = 0.1,
        dynamic_img_size: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, dim
        self.dynamic_img_size, self.grad_checkpointing = dynamic_img_size, grad_checkpointing
        self.patch_embed = PatchEmbed(img_size, patch_size, stride or patch_size, in_chans, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches, dim))
        self.layers = nn.ModuleList(
            VSSBlock(
                dim,
                d_state=d_state,
                ssm_ratio=ssm_ratio,
                conv_bias=conv_bias,
                forward_type=forward_type,
                mlp_ratio=mlp_ratio,
                drop_path=rate,
            )
            for rate in drop_path_rates(depth, drop_path)
        )
        self.norm = GridNorm(dim)
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        stage = {"num_chs": dim, "reduction": self.patch_embed.stride}
        self.feature_info = [{**stage, "module": f"layers.{i}"} for i in range(depth)]
        trunc_normal_(self.pos_embed, std=0.02)
        initialise_linears(self)

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width in pixels the model was built for."""
        return self.patch_embed.img_size

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images.

        Args:
            images: (B, in_chans, H, W), normalised.

        Returns:
            Logits (B, num_classes).
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Final normalised patch tokens (B, rows * columns, D), row after row."""
        x = self._embed(images)
        for block in self.layers:
            x = self._run(block, x)
        return self._finish(x)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Averages the tokens of `forward_features` and applies the head.

        Args:
            tokens: (B, M, D).
            pre_logits: Return the pooled features (B, D) instead of logits.
        """
        features = tokens.mean(1)
        return features if pre_logits else self.head(features)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Outputs of chosen blocks, for dense heads (the signature is timm's).

        Args:
            images: (B, in_chans, H, W).
            indices: Block numbers, negative from the end; an int n = the last n; `None` = all.
            norm: Apply the final norm to each of them.
            stop_early: Skip the blocks after the last wanted one.
            output_fmt: `NCHW` maps (B, D, rows, columns) or `NLC` tokens (B, rows * columns, D).
            intermediates_only: Return only the list.

        Returns:
            Final tokens of `forward_features` and the list, or the list alone.
        """
        wanted = chosen_indices(indices, len(self.layers))
        x, found = self._embed(images), []
        for index, block in enumerate(
            self.layers[: max(wanted) + 1] if stop_early else self.layers
        ):
            x = self._run(block, x)
            if index in wanted:
                grid = self.norm(x) if norm else x
                nchw = output_fmt == "NCHW"
                found.append(grid.permute(0, 3, 1, 2) if nchw else grid.flatten(1, 2))
        return found if intermediates_only else (self._finish(x), found)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a freshly initialised one; 0 classes leave the features."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        initialise_linears(self.head)
        self.head.to(self.pos_embed.device)
        self.init_call["init_args"]["num_classes"] = num_classes

    def no_weight_decay(self) -> set[str]:
        """Positions; timm and our optimiser groups read it."""
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, blocks and final norm for layer-wise learning rates (timm's contract)."""
        return {
            "stem": r"^pos_embed|^patch_embed",
            "blocks": [(r"^layers\.(\d+)", None), (r"^norm", (99999,))],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def set_input_size(self, img_size: Size) -> None:
        """Changes the image size for good, resizing the position table."""
        old_grid = self.patch_embed.grid
        self.patch_embed.set_size(img_size)
        table = self.pos_embed.detach()
        table = resize_position_table(table, old_grid, None, self.patch_embed.grid, None)
        self.pos_embed = nn.Parameter(table)

    def adapt_state_dict(
        self, state: dict[str, Tensor], grid: Grid | None = None
    ) -> dict[str, Tensor]:
        """Fits weights of another image size to this model.

        Args:
            state: Own entries; not changed.
            grid: Patch grid they were trained on; `None` = a square one.

        Returns:
            The entries with `pos_embed` resized where its rows differ.
        """
        table = state.get("pos_embed")
        if table is None or table.shape == self.pos_embed.shape:
            return dict(state)
        side = math.isqrt(table.shape[1])
        new_grid = self.patch_embed.grid
        resized = resize_position_table(table, grid or (side, side), None, new_grid, None)
        return {**state, "pos_embed": resized}

    def _embed(self, images: Tensor) -> Tensor:
        grid, expected = self.patch_embed.grid_of(images), self.patch_embed.grid
        if grid != expected and not self.dynamic_img_size:
            raise SuiteError(
                expected=f"images of {self.img_size} pixels",
                found=f"{tuple(images.shape[-2:])}",
                where="IsotropicSS2D.forward",
                cure="set img_size in data and network alike, or network dynamic_img_size: true",
            )
        positions = resize_position_table(self.pos_embed, expected, None, grid, None)
        x: Tensor = (self.patch_embed(images) + positions).unflatten(1, grid)
        # The residual stream stays float32 whatever the precision of the layers.
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
        return x

    def _finish(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.norm(x)
        return tokens.flatten(1, 2)
