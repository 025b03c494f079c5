"""Vision Mamba (Vim): patches, one class token in the middle, a stack of bidirectional scans.

Follows hustvl/Vim (arXiv 2401.09417) number for number, with its state-dict keys. Images
(B, 3, H, W) become M = rows * columns patch tokens and, by default, a class token at index M // 2:

    x = patches + class token + positions            (B, M + 1, D)
    h, r = block_l(h, r): r += drop_path(h); h = mixer(norm(r))
    logits = head(norm_f(r + drop_path(h))[:, class token])

The residual stream r is float32 under every precision.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.init import kaiming_uniform_, trunc_normal_, zeros_
from torch.utils.checkpoint import checkpoint

from blocks import BiMamba, DropPath, Recorded, ResidualBlock, RMSNorm, drop_path_rates
from blocks.errors import SuiteError
from blocks.positions import Grid, resize_position_table
from lightning_modules.vision.networks.upstream_vim import vim_arguments

Size = int | tuple[int, int]


class VisionMamba(Recorded, nn.Module):
    """Vim classifier and backbone.

    Args:
        img_size: Height and width of the images in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        stride: Step between patches in pixels; `null` = `patch_size`, less for overlapping patches.
        dim: Width of a token (192 tiny, 384 small, 768 base).
        depth: Number of blocks.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        in_chans: Channels of the images.
        d_state: States per channel of the scan.
        bimamba_type: `v2` two directions with their own convolution and projections (the published
            models), `v1` shared ones, `none` a plain causal Mamba.
        divide_out: Halve the sum of the directions (`div2` in the published names).
        class_token: `middle` at index M // 2, `first` at index 0, `none` averages the patches.
        norm: `rms` (published) or `layer`.
        drop_path: Stochastic depth rate of the last block, growing linearly from 0.
        drop_rate: Dropout after the position embedding.
        init_layer_scale: Initial scale of each mixer's output; `null` = none.
        backward_dt_init: `upstream` starts the backward step sizes at 0.69 as every released model
            did, `matched` in [0.001, 0.1] like the forward ones (the stable choice).
        pos_embed_resize: How tables of another size are resized: `middle_aware`, or `upstream`,
            which mistakes patch 0 for the class token as hustvl/Vim does when it fine-tunes.
        dynamic_img_size: Accept images of any size, resizing the positions at each forward.
    """

    def __init__(
        self,
        img_size: Size = 224,
        patch_size: int = 16,
        stride: int | None = None,
        dim: int = 192,
        depth: int = 24,
        num_classes: int | None = 1000,
        in_chans: int = 3,
        d_state: int = 16,
        bimamba_type: Literal["none", "v1", "v2"] = "v2",
        divide_out: bool = True,
        class_token: Literal["middle", "first", "none"] = "middle",
        norm: Literal["rms", "layer"] = "rms",
        drop_path: float = 0.1,
        drop_rate: float = 0.0,
        init_layer_scale: float | None = None,
        backward_dt_init: Literal["upstream", "matched"] = "upstream",
        pos_embed_resize: Literal["middle_aware", "upstream"] = "middle_aware",
        dynamic_img_size: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.class_token = num_classes, dim, class_token
        self.pos_embed_resize, self.dynamic_img_size = pos_embed_resize, dynamic_img_size
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(img_size, patch_size, stride or patch_size, in_chans, dim)
        tokens = self.patch_embed.num_patches
        if class_token != "none":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            tokens += 1
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.pos_drop = nn.Dropout(drop_rate)

        new_norm: Callable[[int], nn.Module]
        new_norm = RMSNorm if norm == "rms" else partial(nn.LayerNorm, eps=1e-5)
        # Block l drops the output of block l - 1, so the rates are shifted by one.
        rates = [0.0, *drop_path_rates(depth, drop_path)]
        self.layers = nn.ModuleList(
            ResidualBlock(
                BiMamba(
                    dim,
                    d_state=d_state,
                    bimamba_type=bimamba_type,
                    divide_out=divide_out,
                    init_layer_scale=init_layer_scale,
                    backward_dt_init=backward_dt_init,
                ),
                new_norm(dim),
                rate,
            )
            for rate in rates[:-1]
        )
        self.drop_path = DropPath(rates[-1])
        self.norm_f = new_norm(dim)
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        stage = {"num_chs": dim, "reduction": self.patch_embed.stride}
        self.feature_info = [{**stage, "module": f"layers.{i}"} for i in range(depth)]
        self._initialise()

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width in pixels the model was built for."""
        return self.patch_embed.img_size

    @classmethod
    def from_upstream(cls, config: dict[str, Any]) -> Self:
        """Builds the model from the constructor arguments of hustvl/Vim's VisionMamba."""
        return cls(**vim_arguments(config))

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images.

        Args:
            images: (B, in_chans, H, W), normalised.

        Returns:
            Logits (B, num_classes).
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Final normalised tokens (B, M [+ 1], D), class token included."""
        hidden, residual = self._embed(images), None
        for layer in self.layers:
            hidden, residual = self._run(layer, hidden, residual)
        return self._finish(hidden, residual)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools the tokens of `forward_features` and applies the head.

        Args:
            tokens: (B, M [+ 1], D).
            pre_logits: Return the pooled features (B, D) instead of logits.
        """
        row = self._class_row(tokens.shape[1] - (self.class_token != "none"))
        features = tokens.mean(1) if row is None else tokens[:, row]
        return features if pre_logits else self.head(features)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Any] | tuple[Tensor, list[Any]]:
        """Outputs of chosen blocks, for dense heads (the signature is timm's).

        Args:
            images: (B, in_chans, H, W).
            indices: Block numbers, negative from the end; an int n = the last n; `None` = all.
            return_prefix_tokens: Also return each block's class token (B, 1, D).
            norm: Add the residual stream and apply the final norm, else the mixer's own output.
            stop_early: Skip the blocks after the last wanted one.
            output_fmt: `NCHW` maps (B, D, rows, columns) or `NLC` patch tokens (B, M, D).
            intermediates_only: Return only the list.

        Returns:
            Final tokens of `forward_features` and the list, or the list alone.
        """
        depth = len(self.layers)
        if indices is None or isinstance(indices, int):
            indices = range(depth - (indices or depth), depth)
        wanted = [index % depth for index in indices]
        hidden, residual = self._embed(images), None
        grid, found = self.patch_embed.grid_of(images), []
        for index, layer in enumerate(
            self.layers[: max(wanted) + 1] if stop_early else self.layers
        ):
            hidden, residual = self._run(layer, hidden, residual)
            if index in wanted:
                tokens = self._finish(hidden, residual) if norm else hidden
                patches, prefix = self._split_class_token(tokens)
                if output_fmt == "NCHW":
                    patches = patches.mT.reshape(*patches.mT.shape[:2], *grid)
                found.append((patches, prefix) if return_prefix_tokens else patches)
        return found if intermediates_only else (self._finish(hidden, residual), found)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a freshly initialised one; 0 classes leave the features."""
        self.num_classes = num_classes
        device = self.pos_embed.device
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self._initialise_linear(self.head)
        self.head.to(device)
        self.init_call["init_args"]["num_classes"] = num_classes

    def no_weight_decay(self) -> set[str]:
        """Embeddings; timm and our optimiser groups read it."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, blocks and final norm for layer-wise learning rates (timm's contract)."""
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": [(r"^layers\.(\d+)", None), (r"^norm_f", (99999,))],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def set_input_size(self, img_size: Size) -> None:
        """Changes the image size for good, resizing the position table."""
        old_grid = self.patch_embed.grid
        self.patch_embed.set_size(img_size)
        table = self._resize(self.pos_embed.detach(), old_grid, self.patch_embed.grid)
        self.pos_embed = nn.Parameter(table)

    def adapt_state_dict(
        self, state: dict[str, Tensor], grid: Grid | None = None
    ) -> dict[str, Tensor]:
        """Fits weights of another image size to this model.

        Args:
            state: Upstream or own entries; not changed.
            grid: Patch grid they were trained on; `None` = a square one, as in every release.

        Returns:
            The entries with `pos_embed` resized where its rows differ.
        """
        table = state.get("pos_embed")
        if table is None or table.shape == self.pos_embed.shape:
            return dict(state)
        patches = table.shape[1] - (self.class_token != "none")
        side = math.isqrt(patches)
        if grid is None and side * side != patches:
            raise SuiteError(
                expected="a square grid of patches, and a row for the class token if there is one",
                found=f"{table.shape[1]} rows",
                where="pos_embed of the checkpoint",
                cure="pass grid=(rows, columns), or the class_token the weights were trained with",
            )
        return {
            **state,
            "pos_embed": self._resize(table, grid or (side, side), self.patch_embed.grid),
        }

    def _embed(self, images: Tensor) -> Tensor:
        grid, expected = self.patch_embed.grid_of(images), self.patch_embed.grid
        if grid != expected and not self.dynamic_img_size:
            raise SuiteError(
                expected=f"images of {self.patch_embed.img_size} pixels",
                found=f"{tuple(images.shape[-2:])}",
                where="VisionMamba.forward",
                cure="set img_size in data and network alike, or network dynamic_img_size: true",
            )
        x = self.patch_embed(images)
        if (row := self._class_row(x.shape[1])) is not None:
            token = self.cls_token.expand(len(x), -1, -1)
            x = torch.cat((x[:, :row], token, x[:, row:]), dim=1)
        embedded: Tensor = self.pos_drop(x + self._resize(self.pos_embed, expected, grid))
        return embedded

    def _run(self, layer: nn.Module, *streams: Tensor | None) -> tuple[Tensor, Tensor]:
        checkpointed = self.grad_checkpointing and torch.is_grad_enabled()
        run = partial(checkpoint, layer, use_reentrant=False) if checkpointed else layer
        hidden, residual = run(*streams)
        return hidden, residual

    def _finish(self, hidden: Tensor, residual: Tensor | None) -> Tensor:
        hidden = self.drop_path(hidden)
        tokens: Tensor = self.norm_f(hidden if residual is None else residual + hidden)
        return tokens

    def _class_row(self, patches: int) -> int | None:
        return {"middle": patches // 2, "first": 0, "none": None}[self.class_token]

    def _split_class_token(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        row = self._class_row(tokens.shape[1] - 1)
        if row is None:
            return tokens, tokens[:, :0]
        return torch.cat((tokens[:, :row], tokens[:, row + 1 :]), 1), tokens[:, row : row + 1]

    def _resize(self, table: Tensor, grid: Grid, new_grid: Grid) -> Tensor:
        if grid == new_grid:
            return table
        rows = [self._class_row(g[0] * g[1]) for g in (grid, new_grid)]
        if self.pos_embed_resize == "upstream" and rows[0] is not None:
            rows = [0, 0]
        return resize_position_table(table, grid, rows[0], new_grid, rows[1])

    def _initialise(self) -> None:
        # hustvl/Vim: LeCun-normal patches, N(0, 0.02) embeddings and head, and mixer outputs
        # shrunk by sqrt(depth), one residual branch a block. The mixers set the rest themselves.
        proj = self.patch_embed.proj
        std = math.sqrt(1 / proj.weight[0].numel()) / 0.87962566103423978
        trunc_normal_(proj.weight, std=std, a=-2 * std, b=2 * std)
        zeros_(self.patch_embed.get_parameter("proj.bias"))
        trunc_normal_(self.pos_embed, std=0.02)
        if self.class_token != "none":
            trunc_normal_(self.cls_token, std=0.02)
        for layer in self.layers:
            out = layer.get_parameter("mixer.out_proj.weight")
            kaiming_uniform_(out, a=math.sqrt(5))
            with torch.no_grad():
                out.div_(math.sqrt(len(self.layers)))
        self._initialise_linear(self.head)

    @staticmethod
    def _initialise_linear(head: nn.Module) -> None:
        if isinstance(head, nn.Linear):
            trunc_normal_(head.weight, std=0.02)
            zeros_(head.bias)


class PatchEmbed(nn.Module):
    """Images (B, C, H, W) to patch tokens (B, rows * columns, D), row-major, overlap allowed."""

    def __init__(
        self, img_size: Size, patch_size: int, stride: int, in_chans: int, dim: int
    ) -> None:
        super().__init__()
        self.patch_size, self.stride = patch_size, stride
        self.set_size(img_size)
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=stride)

    def set_size(self, img_size: Size) -> None:
        """Sets the image size in pixels and with it the grid."""
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if min(height, width) < self.patch_size:
            raise SuiteError(
                expected=f"images of at least one patch, {self.patch_size} pixels",
                found=f"{height} x {width}",
                where="img_size",
                cure="enlarge img_size or choose a smaller patch_size",
            )
        self.img_size = (height, width)
        self.grid = self._grid(height, width)
        self.num_patches = self.grid[0] * self.grid[1]

    def grid_of(self, images: Tensor) -> Grid:
        """Rows and columns of patches in images (B, C, H, W)."""
        return self._grid(images.shape[-2], images.shape[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Embeds the patches."""
        maps: Tensor = self.proj(images)
        return maps.flatten(2).mT

    def _grid(self, height: int, width: int) -> Grid:
        rows, columns = ((size - self.patch_size) // self.stride + 1 for size in (height, width))
        return rows, columns
